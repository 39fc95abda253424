package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// jobName is the scheduler's name of the job that this process is part of:
// "slurm 123_4", job and array task, or "slurm 123"; ".5" is added where the
// job has several tasks, and " restart 1" where it was requeued once, for the
// job keeps its number then. "kubernetes POD" in a pod; "" outside a scheduler.
func jobName(getenv func(string) string) string {
	name := slurmID(getenv)
	switch {
	case name != "":
		name = "slurm " + name
	case getenv("KUBERNETES_SERVICE_HOST") != "":
		return strings.TrimSpace("kubernetes " + cmp.Or(getenv("POD_NAME"), getenv("HOSTNAME")))
	default:
		return ""
	}
	if tasks, err := strconv.Atoi(getenv("SLURM_NTASKS")); err == nil && tasks > 1 && getenv("SLURM_PROCID") != "" {
		name += "." + getenv("SLURM_PROCID")
	}
	if n, err := strconv.Atoi(getenv("SLURM_RESTART_COUNT")); err == nil && n > 0 {
		name += fmt.Sprint(" restart ", n)
	}
	return name
}

// slurmID is the job as squeue and scancel name it, "" outside Slurm.
func slurmID(getenv func(string) string) string {
	array, task := getenv("SLURM_ARRAY_JOB_ID"), getenv("SLURM_ARRAY_TASK_ID")
	if array != "" && task != "" {
		return array + "_" + task
	}
	return getenv("SLURM_JOB_ID")
}

// jobEnd is when the scheduler ends the job of this process; false if never,
// or if it does not say.
func jobEnd(ctx context.Context, getenv func(string) string) (time.Time, bool) {
	id := slurmID(getenv)
	if id == "" {
		return time.Time{}, false
	}
	// Newer ones than Slurm 22.05 say it at once.
	if unix, err := strconv.ParseInt(getenv("SLURM_JOB_END_TIME"), 10, 64); err == nil && unix > 0 {
		return time.Unix(unix, 0), true
	}
	asked := time.Now()
	out, err := squeue(ctx, "squeue", "--jobs="+id, "--format=%L")
	if err != nil {
		return time.Time{}, false
	}
	text := strings.TrimSpace(string(out))
	if text == "INVALID" { // the limit is over, and Slurm about to look
		return asked, true
	}
	left, ok := slurmTime(text)
	return asked.Add(left), ok
}

// slurmTimeRE is how Slurm writes times: [days-][hours:]minutes:seconds.
var slurmTimeRE = regexp.MustCompile(`^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)$`)

// slurmTime reads a time that Slurm wrote; false for UNLIMITED and other words.
func slurmTime(text string) (time.Duration, bool) {
	parts := slurmTimeRE.FindStringSubmatch(text)
	if parts == nil {
		return 0, false
	}
	var d time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, err := strconv.Atoi("0" + parts[i+1])
		if err != nil {
			return 0, false
		}
		d += time.Duration(n) * unit
	}
	return d, true
}

// squeueTime is how long squeue may take; a controller that is down lets it
// wait.
const squeueTime = 10 * time.Second

// squeue runs squeue without its headings and returns what it prints. The error
// has its last line.
func squeue(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, squeueTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--noheader"}, args...)...)
	cmd.WaitDelay = time.Second
	// What a user prefers to see is not what is asked here.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SQUEUE_") })
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if line := lastLine(stderr.String()); line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
		return nil, err
	}
	return out, nil
}

// lastLine is the last line of text that is not empty.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// jobs knows which jobs Slurm still runs. It asks for all of them at once, and
// no more often than every jobsAge.
type jobs struct {
	program string // in place of squeue; for tests

	mu    sync.Mutex
	asked map[string]time.Time // by number: when it was last asked about
	time  time.Time            // of the answer
	err   error                // squeue gave none
	known map[string]slurmJob  // by name, "123_4" and "123"
}

// slurmJob is one line of squeue.
type slurmJob struct {
	state    string
	restarts int // how often it was requeued
}

const (
	// jobsAge is how long an answer of squeue counts.
	jobsAge = 5 * time.Second
	// jobsMemory is how long a job is asked about after someone was interested.
	jobsMemory = 10 * time.Minute
)

// slurmJobRE is a name of jobName: the job, its number, its restarts.
var slurmJobRE = regexp.MustCompile(`^slurm ((\d+)(?:_\d+)?)(?:\.\d+)?(?: restart (\d+))?$`)

// slurmAlive are the states of a job in which its processes may live.
var slurmAlive = []string{"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}

// Gone reports whether the scheduler no longer runs a job, by its jobName. One
// that was requeued is gone, even when it runs again: that is another process.
// While Slurm gives no answer nothing is gone. Without Slurm on this machine,
// and for jobs that are not Slurm's, all are: who asks has nothing else to go
// by than the lease.
func (j *jobs) Gone(ctx context.Context, job string) bool {
	parts := slurmJobRE.FindStringSubmatch(job)
	if parts == nil {
		return true
	}
	name, number := parts[1], parts[2]
	restarts, _ := strconv.Atoi(parts[3]) // "" is 0

	j.mu.Lock()
	defer j.mu.Unlock()
	j.refresh(ctx, number)
	if j.err != nil {
		return errors.Is(j.err, exec.ErrNotFound)
	}
	now, ok := j.known[name]
	switch {
	case !ok || !slices.Contains(slurmAlive, now.state):
		return true
	case now.state == "COMPLETING":
		return now.restarts > restarts+1 // requeued, and counted, before its processes have ended
	default:
		return now.restarts > restarts
	}
}

// refresh asks squeue if its answer is old, or not about this number.
func (j *jobs) refresh(ctx context.Context, number string) {
	now := time.Now()
	if j.asked == nil {
		j.asked = map[string]time.Time{}
	}
	_, included := j.asked[number]
	j.asked[number] = now
	if included && now.Sub(j.time) < jobsAge {
		return
	}
	var numbers []string
	for n, last := range j.asked {
		if now.Sub(last) > jobsMemory {
			delete(j.asked, n)
			continue
		}
		numbers = append(numbers, n)
	}
	program := "squeue"
	if j.program != "" {
		program = j.program
	}
	out, err := squeue(ctx, program, "--array", "--states=all", "--jobs="+strings.Join(numbers, ","),
		"--Format=JobArrayID:40,JobID:20,State:20,RestartCnt:10")
	if err != nil && strings.Contains(err.Error(), "Invalid job id") {
		err = nil // it forgot the only one
	}
	// When it ended, for it may have taken longer than an answer counts.
	j.time, j.err, j.known = time.Now(), err, map[string]slurmJob{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		restarts, _ := strconv.Atoi(f[3]) // "N/A": never
		j.known[f[0]] = slurmJob{f[2], restarts}
		j.known[f[1]] = j.known[f[0]]
	}
}
