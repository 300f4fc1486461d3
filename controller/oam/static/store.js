// The page's copy of the state: replaced by `state`, amended by `patch`. The fold itself is the server's.

export class Store {
  constructor() {
    this.sections = {};
    this.events = [];
    this.lastEvent = 0;
  }

  replace(picture) {
    this.sections = picture;
    if (picture.last_id < this.lastEvent) {
      this.events = []; // another run behind the same address
      this.lastEvent = 0;
    }
  }

  patch(changes) {
    for (const [section, records] of Object.entries(changes)) {
      const mine = (this.sections[section] ??= {});
      for (const [key, record] of Object.entries(records)) {
        if (record === null) delete mine[key];
        else mine[key] = record;
      }
    }
  }

  /** Take an event; false when it is known already (a resumed stream may repeat some). */
  event(event) {
    if (event.id <= this.lastEvent) return false;
    this.lastEvent = event.id;
    this.events.push(event);
    if (this.events.length > 1000) this.events.splice(0, 500);
    return true;
  }

  get(section, key) {
    return this.sections[section]?.[key];
  }

  all(section) {
    return Object.values(this.sections[section] ?? {});
  }
}
