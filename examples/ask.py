"""Craft a query with Scapy, send it to a class of models, show who answers.

    .venv/bin/python examples/ask.py --on asker4 --key /tmp/asker4.key --group cardiology
    .venv/bin/python examples/ask.py --on asker4 --task vignettes --sample 3,17,42

The packet goes to no place: its destination is the label of "models for this task", and the network chooses one. Where
security is on, queries are signed (`daitn keys asker4 --out FILE`); leave --key out to see one refused.
"""

import argparse
import random
import secrets
from pathlib import Path

import msgspec
import standing  # first: makes the project's packages importable
from scapy.config import conf
from scapy.layers.inet import ICMP
from scapy.sendrecv import sr1
from scapy.utils import wrpcap

from packets.ai import AI, AI_PORT, IP, UDP
from packets.errors import DaitnError
from packets.labels import class_label, label_address
from packets.messages import Answer, Ask, decode_message, encode_message
from packets.security.identity import Identity
from packets.security.seal import sign_query


def sample_of(scenario: str, group: str) -> tuple[list[float], str]:
    """Draw a sample as the data of a scenario has it; return it with the right answer."""
    from experiments.errors import ExperimentError
    from experiments.scenarios.scenario import load
    from hosts.learning.errors import LearningError
    from hosts.learning.task import load_task

    try:
        return load_task(load(scenario).data).sample_of(group, random.Random())
    except (DaitnError, ExperimentError, LearningError) as error:
        standing.fail(str(error))


def craft(task: str, sample: list[float], port: int, key: Path | None) -> IP:
    """Return the query, layer by layer."""
    label, own = class_label(task), standing.own_address()
    question = encode_message(Ask(task=task, sample=sample))
    query = (
        AI(type="QUERY", traffic_class="QUERY", object_id=label, owner=own, transfer_id=secrets.randbits(32)) / question
    )
    if key is not None:
        query = AI(sign_query(bytes(query), Identity.load(key)))
    return IP(src=own, dst=label_address(label)) / UDP(sport=port, dport=AI_PORT) / query


def main() -> None:
    """Ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", metavar="HOST", help="terminal to run at, for example asker4")
    parser.add_argument("--key", type=Path, help="that terminal's key file, to sign with")
    parser.add_argument("--task", default="vignettes", help="task of the models to ask (default vignettes)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--group", default="", help="draw a sample of this group of the network's data")
    what.add_argument("--sample", help="numbers, separated by commas")
    parser.add_argument("--scenario", default="healthcare", help="whose data to draw from (default healthcare)")
    parser.add_argument("--save", type=Path, metavar="PCAP", help="keep the query in a capture, for replay.py")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for the answer (default 10)")
    chosen = parser.parse_args()
    if not chosen.timeout > 0:
        parser.error(f"--timeout {chosen.timeout:g}: give seconds above 0")
    standing.at_terminal(chosen.on)
    try:
        sample = [float(number) for number in chosen.sample.split(",")] if chosen.sample else []
    except ValueError:
        parser.error(f"--sample {chosen.sample!r}: give numbers separated by commas")
    sample, expected = (sample, "") if sample else sample_of(chosen.scenario, chosen.group)
    conf.checkIPaddr = False  # the answer comes from a place, the question went to none
    with standing.port_of_ours() as port:
        try:
            query = craft(chosen.task, sample, port, chosen.key)
        except DaitnError as error:
            standing.fail(str(error))
        query[AI].show()
        if chosen.save:
            try:
                wrpcap(str(chosen.save), [query])
            except OSError as error:
                standing.fail(f"--save {chosen.save}: {error.strerror}; name a file in a folder that exists")
        answer = sr1(query, timeout=chosen.timeout, verbose=False)
    if answer is None:
        standing.fail(
            f"no answer within {chosen.timeout:g} s: unsigned queries are dropped where security is on (--key)"
        )
    if ICMP in answer:  # it quotes the query
        standing.fail(f"{answer[IP].src} says that nobody is there to ask: run at a terminal of a network (--on HOST)")
    answer[AI].show()
    try:
        message = decode_message(bytes(answer[AI].payload))
    except msgspec.DecodeError as error:
        standing.fail(f"the answer of {answer[IP].src} is no message of ours: {error}")
    if not isinstance(message, Answer):
        standing.fail(f"refused: {getattr(message, 'reason', message)}")
    right = f" (expected: {expected})" if expected else ""
    print(f"{message.answer}{right}, confidence {message.confidence:.2f}, by {message.answered_by} at {answer[IP].src}")


if __name__ == "__main__":
    main()
