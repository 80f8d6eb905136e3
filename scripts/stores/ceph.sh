#!/usr/bin/env bash
# Ceph's RADOS Gateway on a cluster of one monitor, one manager and one OSD that lives in memory.
# S3 that keeps create-only: a second create answers 412, and a race has one winner.
# GHOSTSYNC_CEPH_OBJECTSTORE=bluestore puts the objects into a sparse 10 GiB file instead.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
require ceph-mon ceph-mgr ceph-osd radosgw radosgw-admin ceph ceph-authtool monmaptool curl

configuration() { # CLUSTER-ID MONITOR-PORT MESSENGER-PORT
  cat <<CONFIG
[global]
  fsid = $1
  mon host = [v2:127.0.0.1:$2/0]
  public addr = 127.0.0.1
  cluster addr = 127.0.0.1
  ms bind ipv6 = false
  ms bind msgr1 = false
  ms bind port min = $3
  ms bind port max = $(($3 + 40))
  keyring = $DIR/keyring
  log file = $DIR/\$name.ceph.log
  pid file =
  admin socket =
  run dir = $DIR
  crash dir = $DIR
  # One copy on one device, and no complaint about it.
  osd pool default size = 1
  osd pool default min size = 1
  osd pool default pg num = 4
  osd pool default pgp num = 4
  osd pool default pg autoscale mode = off
  osd crush chooseleaf type = 0
  mon allow pool size one = true
  mon warn on pool no redundancy = false
  mon pg warn min per osd = 0
  mon max pg per osd = 1000
  mon data avail crit = 1

[mon.a]
  mon data = $DIR/mon
  mon addr = 127.0.0.1:$2

[mgr.x]
  mgr data = $DIR/mgr
  mgr initial modules =
  mgr disabled modules = dashboard

[osd.0]
  osd data = $DIR/osd
  osd objectstore = ${GHOSTSYNC_CEPH_OBJECTSTORE:-memstore}
  memstore device bytes = 4294967296
  bluestore block size = 10737418240
  osd memory target = 939524096

[client.rgw]
  rgw data = $DIR/rgw
  rgw dns name = 127.0.0.1
  rgw thread pool size = 64
  rgw crypt require ssl = false
  # Without tcp_nodelay a small answer waits 40 ms for an acknowledgement.
  rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
CONFIG
}

# Every key and what it may do, in one file that all parts read.
keyring() {
  local name
  while read -r name _; do
    printf '[%s]\n\tkey = %s\n' "$name" "$(ceph-authtool --gen-print-key)"
    case $name in
      mon.) printf '\tcaps mon = "allow *"\n' ;;
      client.admin) printf '\tcaps %s = "allow *"\n' mon osd mgr mds ;;
      mgr.x) printf '\tcaps %s\n' 'mon = "allow profile mgr"' 'osd = "allow *"' 'mds = "allow *"' ;;
      osd.0) printf '\tcaps %s\n' 'mon = "allow profile osd"' 'osd = "allow *"' 'mgr = "allow profile osd"' ;;
      client.rgw) printf '\tcaps %s\n' 'mon = "allow rwx"' 'osd = "allow rwx"' 'mgr = "allow rw"' ;;
    esac
  done < <(printf '%s\n' mon. client.admin mgr.x osd.0 client.rgw)
}

osd_is_up() { ceph --connect-timeout 10 osd stat | grep -q '1 up'; }

launch() {
  local cluster monitor
  new_s3_keys
  cluster=$(cat /proc/sys/kernel/random/uuid)
  monitor=$(free_ports 44)
  [ "$PORT" != 0 ] || PORT=$((monitor + 1))
  mkdir "$DIR"/{mon,mgr,osd,rgw}
  configuration "$cluster" "$monitor" $((monitor + 2)) >"$DIR/ceph.conf"
  (umask 077 && keyring >"$DIR/keyring")
  export CEPH_CONF=$DIR/ceph.conf CEPH_ARGS="--conf $DIR/ceph.conf"

  setup monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$monitor]" "$DIR/monmap"
  setup ceph-mon -i a --mkfs --monmap "$DIR/monmap" --keyring "$DIR/keyring"
  spawn mon ceph-mon -i a -f
  setup timeout 60 ceph --connect-timeout 30 osd create
  spawn mgr ceph-mgr -i x -f
  setup ceph-osd -i 0 --mkfs --osd-uuid "$(cat /proc/sys/kernel/random/uuid)"
  spawn osd ceph-osd -i 0 -f
  await 60 osd_is_up
  spawn rgw radosgw -n client.rgw -f
  await 120 answers "http://127.0.0.1:$PORT/"
  setup timeout 60 radosgw-admin -n client.rgw user create --uid test --display-name test \
    --access-key "$ACCESS_KEY" --secret-key "$SECRET_KEY"
  setup s3 --request PUT "http://127.0.0.1:$PORT/$BUCKET"
  s3_settings
}

run "$@"
