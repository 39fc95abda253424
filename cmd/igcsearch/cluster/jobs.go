package cluster

import (
	"cmp"
	"context"
	"errors"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Jobs knows which jobs Slurm still runs. It asks Slurm about all of them at
// once, and not more often than every jobsAge.
type Jobs struct {
	program string // runs in place of squeue, in tests

	mu    sync.Mutex
	asked map[string]time.Time // by number: when somebody last asked about it
	time  time.Time            // when squeue answered
	err   error                // why squeue gave no answer
	known map[string]slurmJob  // by name, "123_4" and "123"
}

// slurmJob is one line of squeue.
type slurmJob struct {
	state    string
	restarts int // how often Slurm requeued it
}

const (
	// jobsAge is how long an answer of squeue is used.
	jobsAge = 5 * time.Second
	// jobsMemory is how long Jobs goes on asking about a job after the last
	// call of Gone for it.
	jobsMemory = 10 * time.Minute
)

// slurmJobRE matches a name of JobName and finds the job, its number and its
// restarts.
var slurmJobRE = regexp.MustCompile(`^slurm ((\d+)(?:_\d+)?)(?:\.\d+)?(?: restart (\d+))?$`)

// slurmAlive lists the states of a job in which its processes may live.
var slurmAlive = []string{
	"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT",
}

// Gone reports whether the scheduler no longer runs the processes of a job,
// which is named as JobName names it. A job that was requeued is gone, even if
// it runs again, because it runs another process now. No job is gone while
// Slurm does not answer. All jobs are gone if this machine has no Slurm or if
// another scheduler runs them: then only the lease decides.
func (j *Jobs) Gone(ctx context.Context, job string) bool {
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
		// A requeue is counted before the old processes have ended.
		return now.restarts > restarts+1
	default:
		return now.restarts > restarts
	}
}

// refresh asks squeue if its last answer is old or does not cover this number.
func (j *Jobs) refresh(ctx context.Context, number string) {
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
	out, err := squeue(ctx, cmp.Or(j.program, "squeue"), "--array", "--states=all",
		"--jobs="+strings.Join(numbers, ","), "--Format=JobArrayID:40,JobID:20,State:20,RestartCnt:10")
	if err != nil && strings.Contains(err.Error(), "Invalid job id") {
		err = nil // Slurm has forgotten the only job that it was asked about
	}
	// squeue may have taken longer than jobsAge, so its answer counts from now.
	j.time, j.err, j.known = time.Now(), err, map[string]slurmJob{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		restarts, _ := strconv.Atoi(f[3]) // "N/A" is 0
		j.known[f[0]] = slurmJob{f[2], restarts}
		j.known[f[1]] = j.known[f[0]]
	}
}
