#!/usr/bin/env bash
# run.sh COMMAND...: runs a command beside a Ceph object store of its own, and
# ends that with the command, whatever it ended of. The command finds
#
#   S3DAEMON_E2E_CEPH             the store's URL, http://127.0.0.1:PORT
#   S3DAEMON_E2E_CEPH_ACCESS_KEY  its only user's keys
#   S3DAEMON_E2E_CEPH_SECRET_KEY
#   S3DAEMON_E2E_CEPH_KMS_KEY     the name of a key that it can encrypt with
#
# The store is one monitor, one OSD that keeps all in memory, and one gateway,
# on free loopback ports, without authentication between them. It has no
# manager, which I/O does not need. Everything is in a temporary directory,
# which stays when CEPH_KEEP is not empty; what is said there is shown when the
# store does not come up. On Debian: apt-get install ceph-mon ceph-osd radosgw
# ceph-common uuid-runtime.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,15s/^# \?//p' "$0" >&2; exit 2; }

missing=()
for tool in ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin uuidgen setpriv setsid curl; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "not installed: ${missing[*]} (Debian: apt-get install ceph-mon ceph-osd radosgw ceph-common uuid-runtime curl)" >&2
    exit 1
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/s3d-ceph-XXXXXX")
mkdir "$dir/mon" "$dir/osd" "$dir/rgw" "$dir/run"
daemons=() command=

finish() {
    status=$?
    trap - EXIT
    [ -z "$command" ] || kill -- "-$command" 2>/dev/null || true
    # Nothing of the store is wanted any more.
    for daemon in "${daemons[@]}"; do
        kill -KILL "$daemon" 2>/dev/null || true
        timeout 10 tail --pid="$daemon" -f /dev/null || true
    done
    if [ -n "${CEPH_KEEP:-}" ]; then echo "kept: $dir" >&2; else rm -rf "$dir"; fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# free_port prints a port that nobody listens on just now.
free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# start NAME COMMAND...: in the background; it dies with this script even if
# that is killed.
start() {
    local name=$1
    shift
    setpriv --pdeathsig KILL "$@" >>"$dir/$name.out" 2>&1 &
    daemons+=($!)
    disown
}

# await NAME COMMAND...: until the command succeeds, while the daemon started
# last is alive.
await() {
    local name=$1
    shift
    for _ in $(seq 240); do
        if "$@" >>"$dir/$name.out" 2>&1; then return; fi
        kill -0 "${daemons[-1]}" 2>/dev/null || break
        sleep 0.25
    done
    echo "$name does not come up:" >&2
    tail -n 20 "$dir/$name.out" >&2
    exit 1
}

fsid=$(uuidgen)
monitor="[v1:127.0.0.1:$(free_port)]"
url="http://127.0.0.1:$(free_port)"
access=e2e-ceph-access secret=e2e-Ceph-Secret-never-shown kms_key=e2e-key

export CEPH_CONF="$dir/ceph.conf" CEPH_ARGS=
cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon_host = $monitor
ms_bind_msgr2 = false
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = /dev/null
run_dir = $dir/run
admin_socket =
log_file =
log_to_stderr = true
err_to_stderr = true
debug_rgw = 1/1

# One copy of everything, on the only OSD, in pools as small as they come.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000

[mon]
mon_data = $dir/mon
mon_data_avail_crit = 1
mon_cluster_log_to_file = false

[osd]
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 8589934592
# Its place in the map is given below: it asks for one before it surely knows
# the cluster's id, and ends when that is held against it.
osd_class_update_on_start = false
osd_crush_update_on_start = false

[client.rgw]
rgw_frontends = beast endpoint=${url#http://}
rgw_data = $dir/rgw
# A key for aws:kms.
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = $kms_key=$(head -c 32 /dev/zero | base64)
# What is deleted is gone soon, since it is memory.
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 2
CONF

monmaptool --create --fsid "$fsid" --addv a "$monitor" "$dir/monmap" >"$dir/mon.out"
ceph-mon -i a --mkfs --monmap "$dir/monmap" >>"$dir/mon.out" 2>&1
start mon ceph-mon -f -i a
await mon timeout 5 ceph -s

osd=$(uuidgen)
ceph osd new "$osd" 0 >>"$dir/osd.out" 2>&1
ceph-osd -i 0 --mkfs --osd-uuid "$osd" >>"$dir/osd.out" 2>&1
ceph osd crush add osd.0 1 root=default >>"$dir/osd.out" 2>&1
start osd ceph-osd -f -i 0
osd_is_up() { timeout 5 ceph osd stat | grep -q '1 up'; }
await osd osd_is_up

start rgw radosgw -f --id rgw
await rgw curl -sf -o "$dir/rgw.answer" "$url/"
radosgw-admin --id rgw user create --uid e2e --display-name e2e --access-key "$access" --secret-key "$secret" >>"$dir/rgw.out" 2>&1

export S3DAEMON_E2E_CEPH=$url S3DAEMON_E2E_CEPH_ACCESS_KEY=$access S3DAEMON_E2E_CEPH_SECRET_KEY=$secret S3DAEMON_E2E_CEPH_KMS_KEY=$kms_key
unset CEPH_CONF CEPH_ARGS
# In a session of its own, so that an interrupted script can end all of it; and
# waited for, since the shell hears of no signal while a command is in front.
setsid "$@" <&0 &
command=$!
wait "$command"
