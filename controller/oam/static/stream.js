// The live stream: opens it, says how it stands, and opens it again when it was lost.

const SILENCE_MS = 15000; // the server says something at least every 5 s
const RETRY_MS = [1000, 2000, 3000, 5000];

export class Stream {
  /** handlers: {state, patch, event} take parsed data; status(name, sinceMs) is told connecting | live | lost. */
  constructor(url, handlers, status) {
    this.url = url;
    this.handlers = handlers;
    this.status = status;
    this.attempt = 0;
    this.lost = 0;
    this.open();
    setInterval(() => this.watch(), 1000);
  }

  open() {
    this.source?.close();
    this.heard = Date.now();
    this.source = new EventSource(this.url);
    for (const [name, handler] of Object.entries(this.handlers)) {
      this.source.addEventListener(name, (message) => {
        this.alive();
        handler(JSON.parse(message.data));
      });
    }
    this.source.addEventListener("ping", () => this.alive());
    this.source.addEventListener("bye", () => this.broke());
    this.source.onerror = () => this.broke();
  }

  alive() {
    this.heard = Date.now();
    this.attempt = 0;
    this.lost = 0;
    this.status("live", 0);
  }

  broke() {
    this.lost ||= Date.now();
    this.source.close();
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), RETRY_MS[Math.min(this.attempt++, RETRY_MS.length - 1)]);
  }

  watch() {
    if (this.lost) this.tell();
    else if (Date.now() - this.heard > SILENCE_MS) this.broke();
  }

  tell() {
    this.status("lost", Date.now() - this.lost);
  }
}
