#!/usr/bin/env bash
# A Slurm of two nodes on this machine, for tests:
#
#	slurm.sh start DIR    then: export SLURM_CONF=DIR/slurm.conf
#	slurm.sh stop DIR
#
# Everything it writes lies below DIR: keys, sockets, states, logs. Needs root,
# and installs Debian's packages where they are missing. Both nodes are this
# machine: what they have of it is not enforced.
set -euo pipefail
fail() { echo "slurm.sh: $*" >&2; exit 1; }
[ $# = 2 ] || fail "want: start DIR, or stop DIR"
[ "$(id -u)" = 0 ] || fail "it needs root"
mkdir -p "$2"
dir=$(cd "$2" && pwd)
export SLURM_CONF=$dir/slurm.conf
PATH=$PATH:/usr/sbin:/sbin
daemons=(n1.pid n2.pid ctld.pid munge.pid)

# ours PIDFILE: the process that wrote it, if that still runs.
ours() {
	local pid
	pid=$(cat "$dir/$1" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && echo "$pid"
}

stop() {
	local pid file
	if ours ctld.pid >/dev/null; then
		scancel --quiet --user=root --signal=KILL --full 2>/dev/null || true # the jobs themselves
		scancel --quiet --user=root 2>/dev/null || true
		for _ in $(seq 50); do
			[ -n "$(squeue --noheader 2>/dev/null)" ] || break
			sleep 0.2
		done
	fi
	for file in "${daemons[@]}"; do
		pid=$(ours "$file") || continue
		kill "$pid" 2>/dev/null || true
		for i in $(seq 100); do
			kill -0 "$pid" 2>/dev/null || break
			[ "$i" != 70 ] || kill -9 "$pid" 2>/dev/null || true
			sleep 0.1
		done
		rm -f "$dir/$file"
	done
}

start() {
	local missing=() program running
	for program in sbatch slurmctld slurmd munged; do
		command -v $program >/dev/null || missing+=($program)
	done
	if [ ${#missing[@]} -gt 0 ]; then
		command -v apt-get >/dev/null || fail "there is no ${missing[*]}, and no apt-get to install it with"
		(apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm slurmctld slurmd munge) >"$dir/apt.log" 2>&1 ||
			fail "there is no ${missing[*]}, and apt-get does not install it: $(tail -n 1 "$dir/apt.log")"
	fi
	# A munged of the machine is no matter: ours has a socket of its own.
	for program in slurmctld slurmd; do
		running=$(grep -lx $program /proc/[0-9]*/comm 2>/dev/null | head -n 1) || true
		[ -z "$running" ] || fail "a $program runs already (${running%/comm}): stop that first"
	done

	mkdir -p "$dir/state" "$dir/spool" "$dir/log"
	rm -f "$dir/munge.key"
	(umask 377 && head -c 1024 /dev/urandom >"$dir/munge.key")
	local host
	host=$(hostname -s)
	# Quick for tests: a job that is requeued waits until its credential is over
	# (cred_expire), and for the next look at the queue (sched_interval).
	cat >"$SLURM_CONF" <<-END
		ClusterName=test
		SlurmctldHost=$host(127.0.0.1)
		SlurmctldPort=16817
		SlurmUser=root
		AuthType=auth/munge
		AuthInfo=socket=$dir/munge.socket,cred_expire=5
		StateSaveLocation=$dir/state
		SlurmdSpoolDir=$dir/spool/%n
		SlurmctldLogFile=$dir/log/ctld.log
		SlurmdLogFile=$dir/log/%n.log
		SlurmctldPidFile=$dir/ctld.pid
		SlurmdPidFile=$dir/%n.pid
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_Core
		SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
		SlurmdParameters=config_overrides
		ReturnToService=2
		MailProg=/bin/true
		KillWait=10
		NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=8 State=UNKNOWN
		PartitionName=test Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
	END
	# --force: that the folders above DIR are private to root is no danger here.
	munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munge.pid" \
		--log-file="$dir/log/munge.log" --seed-file="$dir/munge.seed" 2>>"$dir/log/start.log" || fail "munged: $(tail -n 1 "$dir/log/start.log")"
	for program in slurmctld "slurmd -N n1" "slurmd -N n2"; do
		$program >>"$dir/log/start.log" 2>&1 || { stop; fail "$program: $(tail -n 1 "$dir/log/start.log")"; }
	done
	for _ in $(seq 150); do
		if [ "$(sinfo --noheader --Node --format=%T 2>/dev/null | grep -cx idle)" = 2 ]; then
			echo "SLURM_CONF=$SLURM_CONF"
			return
		fi
		sleep 0.2
	done
	echo "slurm.sh: the nodes are not idle after 30 seconds; the last lines of $dir/log:" >&2
	tail -n 3 "$dir"/log/*.log >&2 || true
	stop
	exit 1
}

case $1 in
start | stop) "$1" ;;
*) fail "want: start DIR, or stop DIR" ;;
esac
