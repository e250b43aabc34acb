#!/bin/bash
# Makes the segment files beside this script again, with Apache Kafka itself: `./make.sh [VERSION...]`.
#
# Needs mvn and a JDK from 17 on; the jars come by their Maven coordinates, from wherever this machine's Maven gets them.
# One broker runs at a time, on ports that are free. What is random in Kafka (cluster and topic ids, producer ids
# across runs, append times) is new each time: `expected.jsonl` is made from the same run.
set -euo pipefail
export LC_ALL=C.UTF-8

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
# The last lets snappy-java of 2012 put its loader of native code where it wants it.
java=(java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 --add-opens=java.base/java.lang=ALL-UNNAMED)
children=()

finish() {
    for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null || true; done
    [[ -n ${KEEP_WORK:-} ]] || rm -rf "$work"
}
trap finish EXIT

# jars VERSION SCALA: sets `jars` to the class path of that Kafka.
jars() {
    jars="$work/jars/$1/*"
    mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -Dkafka.version="$1" -Dscala.version="$2" -DoutputDirectory="$work/jars/$1" >>"$work/log" 2>&1 \
        || { tail -n 20 "$work/log" >&2; return 1; }
    version=$1
    home="$work/$1"
    data="$home/data"
    mkdir -p "$home"
    printf '%s\n' log4j.rootLogger=WARN,out log4j.appender.out=org.apache.log4j.ConsoleAppender \
        log4j.appender.out.layout=org.apache.log4j.SimpleLayout >"$home/log4j.properties"
    java=("${java[@]:0:5}" "-Dlog4j.configuration=file:$home/log4j.properties")
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); listens "$port"; do :; done
    echo "$port"
}

# start NAME PORT COMMAND...: starts a server, waits until it listens, and sets `started` to its process.
start() {
    local name=$1 port=$2 tries
    shift 2
    "$@" >>"$home/$name.out" 2>&1 &
    started=$!
    children+=("$started")
    for tries in {1..300}; do
        if listens "$port"; then return; fi
        kill -0 "$started" 2>>"$work/log" || break
        sleep 0.2
    done
    tail -n 30 "$home/$name.out" >&2
    return 1
}

# stop PROCESS [SIGNAL]
stop() {
    kill -"${2:-TERM}" "$1"
    wait "$1" 2>/dev/null || true
}

# run CLASS ARGUMENT...: a program of the Kafka at hand, or one of ours.
run() {
    timeout 120 "${java[@]}" -cp "$jars" "$@" >>"$home/run.out" 2>&1 || { tail -n 30 "$home/run.out" >&2; return 1; }
}

# old_broker SETTING...: starts ZooKeeper and a broker before KRaft.
old_broker() {
    keeper_port=$(free_port)
    start keeper "$keeper_port" "${java[@]}" -cp "$jars" \
        org.apache.zookeeper.server.ZooKeeperServerMain "$keeper_port" "$home/keeper"
    keeper=$started
    broker_port=$(free_port)
    printf '%s\n' broker.id=0 host.name=127.0.0.1 "port=$broker_port" "zookeeper.connect=127.0.0.1:$keeper_port" \
        "log.dirs=$data" log.segment.bytes=900 log.index.interval.bytes=100 log.index.size.max.bytes=4096 \
        num.partitions=1 offsets.topic.num.partitions=1 offsets.topic.replication.factor=1 \
        log.cleaner.dedupe.buffer.size=2000000 log.cleaner.io.buffer.size=65536 log.cleaner.backoff.ms=100 \
        log.retention.hours=100000 "$@" >"$home/server.properties"
    start broker "$broker_port" "${java[@]}" -cp "$jars" kafka.Kafka "$home/server.properties"
    broker=$started
}

stop_old_broker() {
    stop "$broker"
    stop "$keeper"
}

old_topic() {
    run kafka.admin.TopicCommand --zookeeper "127.0.0.1:$keeper_port" --create --topic "$1" \
        --partitions 1 --replication-factor 1 $(printf -- ' --config %s' "${@:2}")
}

# wait_until_cleaned TOPIC: until the log cleaner has been through all but the active segment.
wait_until_cleaned() {
    local tries active
    for tries in {1..300}; do
        active=$(cd "$data/$1-0" && ls *.log | tail -n 1)
        active=$((10#${active%.log}))
        if [[ $active -gt 0 ]] && grep -qs "^$1 0 $active\$" "$data/cleaner-offset-checkpoint"; then return; fi
        sleep 0.2
    done
    echo "$1 was never cleaned" >&2
    return 1
}

# keep FOLDER PARTITION...: copies the partitions, and what Kafka says is in them.
keep() {
    local folder=$1 partition
    rm -rf "${here:?}/$folder"
    mkdir -p "$here/$folder"
    for partition in "${@:2}"; do cp -r "$data/$partition" "$here/$folder/"; done
    expect "$folder"
}

# expect FOLDER: writes `expected.jsonl`, in which Kafka's record classes and kafka-dump-log agree.
expect() {
    local latest="$jars"
    if [[ $version == 0.* ]]; then latest="$reader"; fi
    "${java[@]}" -cp "$latest" "$here/java/Expect.java" "$here/$1" >"$here/$1/expected.jsonl" 2>>"$home/expect.out" \
        || { tail -n 30 "$home/expect.out" >&2; return 1; }
    echo "$1: $(wc -l <"$here/$1/expected.jsonl") records"
}

make_0.8.0() {
    jars 0.8.0 2.9.2
    old_broker
    run "$here/java/Old.java" "127.0.0.1:$broker_port" no-nulls plain=none gzip=gzip snappy=snappy
    stop_old_broker
    keep kafka-0.8.0 plain-0 gzip-0 snappy-0
}

make_0.8.2() {
    jars 0.8.2.2 2.10
    old_broker log.cleaner.enable=true
    old_topic compacted cleanup.policy=compact min.cleanable.dirty.ratio=0.01
    run "$here/java/Old.java" "127.0.0.1:$broker_port" nulls plain=none gzip=gzip snappy=snappy lz4=lz4 compacted=gzip
    wait_until_cleaned compacted
    stop_old_broker
    keep kafka-0.8.2 plain-0 gzip-0 snappy-0 lz4-0 compacted-0
}

make_0.10.2() {
    jars 0.10.2.2 2.11
    old_broker
    old_topic compacted cleanup.policy=compact min.cleanable.dirty.ratio=0.01
    old_topic append-time message.timestamp.type=LogAppendTime
    old_topic append-time-gzip message.timestamp.type=LogAppendTime
    run "$here/java/Middle.java" "127.0.0.1:$broker_port" plain=none gzip=gzip snappy=snappy lz4=lz4 \
        append-time=none append-time-gzip=gzip compacted=gzip
    wait_until_cleaned compacted
    stop_old_broker
    keep kafka-0.10.2 plain-0 gzip-0 snappy-0 lz4-0 append-time-0 append-time-gzip-0 compacted-0
}

make_0.11() {
    jars 0.11.0.3 2.11
    old_broker
    old_topic mixed message.format.version=0.9.0
    run "$here/java/Middle.java" "127.0.0.1:$broker_port" mixed=none mixed=gzip
    local format
    for format in 0.10.2 0.11.0; do
        run kafka.admin.ConfigCommand --zookeeper "127.0.0.1:$keeper_port" --alter --entity-type topics \
            --entity-name mixed --add-config "message.format.version=$format"
        sleep 3
        run "$here/java/Middle.java" "127.0.0.1:$broker_port" mixed=none mixed=gzip
    done
    stop_old_broker
    keep kafka-0.11 mixed-0
}

# modern_broker: starts one broker of a Kafka with KRaft; what is in $data stays.
modern_broker() {
    broker_port=$(free_port)
    local controller_port
    controller_port=$(free_port)
    printf '%s\n' process.roles=broker,controller node.id=1 "controller.quorum.voters=1@127.0.0.1:$controller_port" \
        "listeners=PLAINTEXT://127.0.0.1:$broker_port,CONTROLLER://127.0.0.1:$controller_port" \
        "advertised.listeners=PLAINTEXT://127.0.0.1:$broker_port" controller.listener.names=CONTROLLER \
        "log.dirs=$data" log.roll.ms=3600000 log.index.interval.bytes=100 log.index.size.max.bytes=2048 \
        log.retention.ms=-1 log.cleaner.dedupe.buffer.size=2000000 log.cleaner.io.buffer.size=65536 \
        log.cleaner.backoff.ms=100 offsets.topic.num.partitions=1 offsets.topic.replication.factor=1 \
        transaction.state.log.num.partitions=1 transaction.state.log.replication.factor=1 \
        transaction.state.log.min.isr=1 group.initial.rebalance.delay.ms=0 >"$home/server.properties"
    if [[ ! -e $data/meta.properties ]]; then
        run kafka.tools.StorageTool format -t "highwaterSegmentsAAAAA" -c "$home/server.properties"
    fi
    start broker "$broker_port" "${java[@]}" -cp "$jars" kafka.Kafka "$home/server.properties"
    broker=$started
}

modern() {
    run "$here/java/Modern.java" "127.0.0.1:$broker_port" "$1"
}

# consume: keeps what a read_committed consumer sees.
consume() {
    timeout 120 "${java[@]}" -cp "$jars" "$here/java/Modern.java" "127.0.0.1:$broker_port" consume \
        2>>"$home/run.out" | sort >"$home/consumed"
}

# keep_all FOLDER: copies the data directory, and compares what Kafka says is in it with what was consumed.
keep_all() {
    rm -rf "${here:?}/$1"
    cp -r "$data" "$here/$1"
    # 20 MiB of zeros, in the indexes that a killed broker leaves as they were preallocated.
    if [[ $1 == *-killed ]]; then rm -r "$here/$1/__cluster_metadata-0"; fi
    expect "$1"
    local visible='s/.*"partition":"([^"]*)","offset":([0-9]+),.*/\1 \2/p'
    # What is below the log start is in the files, and not for consumers.
    if ! grep -vE '"partition":"__|"control":|"transaction":"(aborted|open)"' "$here/$1/expected.jsonl" \
        | sed -nE "$visible" | awk '$1 != "trimmed-0" || $2 >= 18' | sort | diff - "$home/consumed" >&2; then
        echo "$1: a consumer sees other records" >&2
        return 1
    fi
}

# make_modern FOLDER
make_modern() {
    modern_broker
    modern first
    wait_until_cleaned compacted
    wait_until_cleaned compacted-transactions
    stop "$broker"
    modern_broker
    modern second
    wait_until_cleaned compacted-zstd
    consume
    stop "$broker"
    keep_all "$1"
    rm -rf "$data"
    modern_broker
    modern killed
    consume
    stop "$broker" KILL
    keep_all "$1-killed"
    truncate --size=-7 "$(ls "$here/$1-killed/torn-0"/*.log | tail -n 1)"
    expect "$1-killed"
}

make_3.9() {
    jars 3.9.1 2.13
    make_modern kafka-3.9
}

make_4.1() {
    jars 4.1.0 2.13
    make_modern kafka-4.1
}

jars 3.9.1 2.13
reader=$jars
if [[ $# -eq 0 ]]; then set -- 0.8.0 0.8.2 0.10.2 0.11 3.9 4.1; fi
for version in "$@"; do "make_$version"; done
