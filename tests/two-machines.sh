#!/usr/bin/env bash
# Walks through docs/two-machines.md on four machines that are network namespaces: a server and three clients, which share nothing but
# a bridge. Needs root, `ip` of iproute2, and the binary:
#
#     cargo build --release --locked -p skep-cli && sudo tests/two-machines.sh target/release/skep
set -euo pipefail
skep=$(realpath "${1:?say where the binary is: tests/two-machines.sh target/release/skep}")
work=$(mktemp -d)
tag=skep$$
machines=(server one two three)

on() { ip netns exec "$tag-$1" env -C "$work/$1" "${@:2}"; }
say() { printf '\n--- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

cleanup() {
    for machine in "${machines[@]}"; do
        ip netns pids "$tag-$machine" 2>/dev/null | xargs -r kill 2>/dev/null || true
        ip netns del "$tag-$machine" 2>/dev/null || true
        rm -rf "/etc/netns/$tag-$machine"
    done
    rm -rf "$work"
}
trap cleanup EXIT

say "four machines: 10.77.0.1 is server.example"
for machine in "${machines[@]}"; do
    ip netns add "$tag-$machine"
    mkdir -p "/etc/netns/$tag-$machine" "$work/$machine"
    printf '127.0.0.1 localhost\n10.77.0.1 server.example\n' > "/etc/netns/$tag-$machine/hosts"
    ip -n "$tag-$machine" link set lo up
done
ip -n "$tag-server" link add br0 type bridge
ip -n "$tag-server" addr add 10.77.0.1/24 dev br0
ip -n "$tag-server" link set br0 up
number=2
for machine in one two three; do
    ip -n "$tag-server" link add "to-$machine" type veth peer name eth0 netns "$tag-$machine"
    ip -n "$tag-server" link set "to-$machine" master br0 up
    ip -n "$tag-$machine" addr add "10.77.0.$number/24" dev eth0
    ip -n "$tag-$machine" link set eth0 up
    number=$((number + 1))
done

say "the server: an experiment, and what it costs"
on server "$skep" init three.toml
sed -i -e 's/^clients = 100/clients = 3/' -e 's/^min_updates = 90/min_updates = 2/' -e '/^\[privacy\]/q' "$work/server/three.toml"
printf 'mode = "none"\n' >> "$work/server/three.toml"
on server "$skep" check three.toml > "$work/check"
grep '^server' "$work/check"

say "the server starts"
on server "$skep" serve three.toml --listen 0.0.0.0:4433 --advertise server.example:4433 --state server-state --out results \
    > "$work/served" 2> "$work/log" &
server=$!
for _ in $(seq 100); do grep -q '^listening' "$work/log" && break; sleep 0.1; done
grep '^listening' "$work/log" || fail "the server does not listen: $(cat "$work/log")"
[ "$(find "$work/server/server-state" -type f -perm /077 | wc -l)" = 0 ] || fail "others can read the server's state"

say "an invitation each; a stolen one is refused"
for machine in one two three; do
    on server "$skep" invite --state server-state --expires-in 24h > "$work/$machine/invitation"
done
on one "$skep" join "$(cat "$work/one/invitation")" --data digits:0/3 --state client-state > "$work/one/said" 2>&1 &
one=$!
for _ in $(seq 100); do grep -q '^taking part' "$work/one/said" && break; sleep 0.1; done
code=0
on two "$skep" join "$(cat "$work/one/invitation")" --data digits:1/3 --state thief-state > "$work/two/thief" 2>&1 || code=$?
[ "$code" = 5 ] || fail "a used invitation ends with $code, not 5: $(cat "$work/two/thief")"
grep -o 'already been used' "$work/two/thief"

say "the first client stops, and continues as who it is"
ip netns pids "$tag-one" | xargs kill -INT
wait $one || true
on one "$skep" join --data digits:0/3 --state client-state > "$work/one/said" 2>&1 &
one=$!

say "the others join, the last one with a file of its own"
on two "$skep" join "$(cat "$work/two/invitation")" --data digits:1/3 --state client-state > "$work/two/said" 2>&1 &
two=$!
{ seq -s, -f 'p%g' 1 64 | sed 's/$/,label/'; awk 'BEGIN { for (i = 0; i < 200; i++) { for (p = 0; p < 64; p++) printf "%g,", (i * 31 + p * 17) % 16 / 16; print i % 10 } }'; } \
    > "$work/three/mine.csv"
on three "$skep" data inspect mine.csv | grep '^label'
on three "$skep" join "$(cat "$work/three/invitation")" --data mine.csv --classes 10 --state client-state > "$work/three/said" 2>&1 &
three=$!

for process in $one $two $three $server; do
    wait "$process" || fail "a process ended with $?: $(tail -n 5 "$work"/log "$work"/*/said)"
done
say "what each client says"
tail -n 2 "$work"/{one,two,three}/said
say "what the server says"
cat "$work/served"
for file in experiment.toml model.safetensors report.html rounds.jsonl summary.json; do
    [ -s "$work/server/results/$file" ] || fail "results/$file is missing"
done
grep -q '60 complete, 0 degraded, 0 aborted' "$work/served" || fail "not every round is complete"
say "walked through"
