"""Debian's kcat as one of the drivers of the client matrix: each verb is one or more runs of the program.

    version | produce | consume | group | idempotent, as ../README.md says

Left out, as kcat is a command line and no library: `admin`; in `produce` timestamps, empty values without a key, NUL in
headers and "=" in their names; in `group` a pause between a print and its commit. kcat commits by librdkafka's timer
alone, whatever became of its output, so `group` sets that timer so high that only a revocation and the end of the
member commit, and says so of the end.
"""

import collections
import ctypes
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile

import driver

PR_SET_PDEATHSIG = 1
DELIVERED = re.compile(r"% Message delivered to partition (\d+) \(offset (\d+)\)")
REBALANCED = re.compile(
    r"% Group .* rebalanced"
    r"(?: \(memberid .*\): (assigned|revoked): |: incremental (assignment|revoke) of .*\): )(.*)$"
)
# Written at once, possibly amid a line of the program itself.
LOG_LINE = re.compile(rb"%[0-7]\|[0-9.]+\|[A-Z_]+\|[^\n]*\n")
NEVER_MS = 86_400_000


def kcat(bootstrap, *arguments, **settings):
    properties = [["-X", f"{name.replace('_', '.')}={value}"] for name, value in settings.items()]
    return ["kcat", "-b", bootstrap, *itertools.chain(*properties), *arguments]


def start(command, **pipes):
    """A kcat that does not outlive this process."""
    libc = ctypes.CDLL(None)
    return subprocess.Popen(command, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), **pipes)


def run(command, **pipes):
    done = subprocess.run(command, capture_output=True, **pipes)
    if done.returncode != 0:
        raise driver.Wrong(f"{command[:6]} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done


def produce(bootstrap, topic, codec, file):
    records = list(driver.records_of(file))
    for record in records:
        refuse_what_kcat_lacks(record)
    partitions = collections.defaultdict(list)
    for record in records:
        partitions[record.partition].append(record)
    offsets = {}
    for partition, its in partitions.items():
        offsets[partition] = []
        # The headers of a run, and what an empty string in its input stands for, hold for all its records.
        for (headers, nulls), batch in itertools.groupby(its, lambda record: (record.headers, nulls_of(record))):
            command = [*kcat(bootstrap, message_max_bytes=driver.LARGE), "-P", "-vv", "-t", topic]
            command += ["-p", str(partition), "-z", codec, *nulls, *header_arguments(headers)]
            offsets[partition] += send(command, list(batch))
    turns = {partition: iter(found) for partition, found in offsets.items()}
    for record in records:
        driver.emit(partition=record.partition, offset=next(turns[record.partition]))


def refuse_what_kcat_lacks(record):
    if record.timestamp is not None:
        raise driver.Unsupported("kcat sets no timestamps")
    if record.key is None and record.value == b"":
        raise driver.Unsupported("kcat skips a record with an empty value and no key")
    if any(not name or "=" in name or b"\0" in name.encode() + (value or b"") for name, value in record.headers):
        raise driver.Unsupported('kcat takes headers from its command line: no NUL, no "=" in a name, no empty name')


def nulls_of(record):
    if record.value is not None:
        return ()
    return ("-Z", "-k", "") if record.key == b"" else ("-Z",)


def header_arguments(headers):
    for name, value in headers:
        yield "-H"
        yield name if value is None else name.encode() + b"=" + value


def send(command, records):
    delimiters = [os.urandom(12).hex() for _ in range(2)]
    between, after_key = [delimiter.encode() for delimiter in delimiters]
    parts = []
    for record in records:
        has_key = record.key is not None or record.value is None
        parts.append((record.key or b"") + after_key * has_key + (record.value or b""))
    command = [*command, "-D", delimiters[0], "-K", delimiters[1]]
    said = run(command, input=between.join(parts)).stderr.decode(errors="replace")
    found = [int(offset) for _, offset in DELIVERED.findall(said)]
    if len(found) != len(records):
        raise driver.Wrong(f"{len(found)} of {len(records)} records are acknowledged: {said}")
    return found


def consume(bootstrap, topic, partitions, **options):
    word, number = driver.start(options["from"])
    position = {"beginning": "beginning", "offset": str(number), "time": f"s@{number}"}[word]
    settings = {"max_partition_fetch_bytes": options["fetch_bytes"]} if "fetch_bytes" in options else {}
    for partition in range(int(partitions)):
        end = end_offset(bootstrap, topic, partition)
        if end == 0 or word == "offset" and number >= end:
            continue
        command = kcat(bootstrap, "-C", "-q", "-e", "-J", auto_offset_reset="earliest", **settings)
        done = run([*command, "-t", topic, "-p", str(partition), "-o", position])
        for line in done.stdout.splitlines():
            record = decoded(line)
            if record["offset"] < end:
                headers = record.get("headers", [])
                pairs = [(name, raw(value)) for name, value in zip(headers[::2], headers[1::2])]
                key, value = raw(record["key"]), raw(record["payload"])
                driver.emit_record(partition, record["offset"], key, value, pairs, record["ts"])


def end_offset(bootstrap, topic, partition):
    done = run(kcat(bootstrap, "-Q", "-t", f"{topic}:{partition}:-1"))
    return int(re.search(rb"offset (\d+)", done.stdout).group(1))


def decoded(line):
    # kcat copies bytes that are not UTF-8 into its JSON as they are.
    return json.loads(line.decode("utf-8", "surrogateescape"))


def raw(text):
    return None if text is None else text.encode("utf-8", "surrogateescape")


def group(bootstrap, topic, group, **options):
    member = driver.Member(**options)
    if member.pause:
        raise driver.Unsupported("kcat commits by a timer of librdkafka, not after what it printed")
    strategy = "cooperative-sticky" if member.strategy == "cooperative" else member.strategy
    settings = {
        "auto_offset_reset": "earliest",
        "auto_commit_interval_ms": NEVER_MS,
        "session_timeout_ms": member.session_ms,
        "heartbeat_interval_ms": member.heartbeat_ms,
        **({} if strategy is None else {"partition_assignment_strategy": strategy}),
        **({} if member.instance is None else {"group_instance_id": member.instance}),
    }
    limit = [] if member.left == sys.maxsize else ["-c", str(member.left)]
    command = [*kcat(bootstrap, "-E", "-J", "-u", **settings), *limit, "-G", group, topic]
    # One pipe, so that records and rebalances come in the order in which they were.
    process = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, heard, leaving = [], 0, None
    for lines in output(process.stdout, said):
        for line in lines:
            if line.startswith(b"{"):
                record = decoded(line)
                member.got(record["partition"], record["offset"], raw(record["payload"]))
            else:
                said.append(line.decode(errors="replace"))
                rebalanced(member, said[-1])
        if leaving is None and not member.goes_on():
            leaving = heard
            process.terminate()
        heard = len(said)
    # A commit that failed before is made up for; this one was the last.
    if process.wait() != 0 or any("COMMITFAIL" in line for line in said[leaving:]):
        raise driver.Wrong(f"kcat ended with {process.returncode}: {said}")
    if member.pending:
        member.committed(dict(member.pending))


def rebalanced(member, line):
    found = REBALANCED.match(line)
    if found is None:
        return
    eager, incremental, partitions = found.groups()
    numbers = [int(number) for number in re.findall(r"\[(\d+)\]", partitions)]
    if (eager or incremental).startswith("assign"):
        member.add(numbers)
        return
    # What is revoked because the member leaves is said to be committed when it has left.
    pending = {} if member.goes_on() else dict(member.pending)
    member.remove(numbers)
    member.pending |= pending


def output(stream, said):
    """Whole lines as they come, now and then none. What librdkafka logs, from threads of its own, goes to `said`."""

    def log_line(found):
        said.append(found.group().decode(errors="replace"))
        return b""

    left = b""
    while True:
        ready, _, _ = select.select([stream], [], [], 0.2)
        data = os.read(stream.fileno(), 1 << 16) if ready else b""
        if ready and not data:
            return
        *lines, left = LOG_LINE.sub(log_line, left + data).split(b"\n")
        yield lines


def idempotent(bootstrap, topic, count):
    settings = {
        "enable_idempotence": "true",
        "message_timeout_ms": driver.RETRY_MS,
        "queue_buffering_max_messages": driver.QUEUED_MAX,
    }
    command = [*kcat(bootstrap, "-P", "-E", "-vv", "-t", topic, "-p", "0", **settings)]
    with tempfile.TemporaryFile() as values:
        values.writelines(b"%d\n" % i for i in range(int(count)))
        values.seek(0)
        process = start(command, stdin=values, stderr=subprocess.PIPE)
    said, acked = [], 0
    for line in process.stderr:
        line = line.decode(errors="replace")
        if DELIVERED.match(line):
            # Those of one partition are acknowledged in order.
            driver.emit(acked=acked)
            acked += 1
        else:
            said.append(line)
    if process.wait() != 0 or acked != int(count):
        raise driver.Wrong(f"kcat ended with {process.returncode}, {acked} are acknowledged: {''.join(said)}")


def admin(*_, **__):
    raise driver.Unsupported("kcat has no admin calls: it produces, consumes and lists metadata")


def version():
    said = run(["kcat", "-V"]).stdout.decode()
    kcat_version, librdkafka = re.search(r"Version (\S+) .*librdkafka (\S+)", said).groups()
    return f"{kcat_version} (librdkafka {librdkafka})"


if __name__ == "__main__":
    verbs = {verb.__name__: verb for verb in (produce, consume, group, idempotent, admin)}
    driver.main("kcat", version(), verbs)
