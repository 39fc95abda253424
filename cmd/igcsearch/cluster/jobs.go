package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	time  time.Time            // when squeue was last asked
	err   error                // why its answer says nothing of the jobs
	known map[string]slurmJob  // by name, "123_4" and "123"
	way   int                  // of slurmWays: the first that is tried
}

// slurmJob is one line of squeue.
type slurmJob struct {
	state    string
	restarts int // how often Slurm requeued it; -1: not known
}

const (
	// jobsAge is how long an answer of squeue is used.
	jobsAge = 5 * time.Second
	// jobsMemory is how long Jobs goes on asking about a job after the last
	// call of Gone for it.
	jobsMemory = 10 * time.Minute
)

var (
	// slurmJobRE matches a name of JobName and finds the job, its number and its
	// restarts.
	slurmJobRE = regexp.MustCompile(`^slurm ((\d+)(?:_\d+)?)(?:\.\d+)?(?: restart (\d+))?$`)
	// slurmLineRE matches a job as squeue names it, "7", "7_1", "7_[2-5%2]", "7+1",
	// and finds its number.
	slurmLineRE = regexp.MustCompile(`^(\d+)(?:_\d+|_\[[^\]]*\]?|\+\d+)?$`)
)

// slurmStates are the states of a job and their short forms. In those that are
// true its processes may live.
var slurmStates = map[string]bool{
	"RUNNING": true, "COMPLETING": true, "CONFIGURING": true, "SUSPENDED": true, "STOPPED": true, "SIGNALING": true,
	"RESIZING": true, "STAGE_OUT": true,
	"R": true, "CG": true, "CF": true, "S": true, "ST": true, "SI": true, "RS": true, "SO": true,

	"PENDING": false, "COMPLETED": false, "CANCELLED": false, "FAILED": false, "TIMEOUT": false, "NODE_FAIL": false,
	"PREEMPTED": false, "OUT_OF_MEMORY": false, "DEADLINE": false, "BOOT_FAIL": false, "REQUEUED": false,
	"REQUEUE_HOLD": false, "REQUEUE_FED": false, "RESV_DEL_HOLD": false, "SPECIAL_EXIT": false, "REVOKED": false,
	"LAUNCH_FAILED": false,
	"PD":            false, "CD": false, "CA": false, "F": false, "TO": false, "NF": false, "PR": false, "OOM": false,
	"DL": false, "BF": false, "RQ": false, "RH": false, "RF": false, "RD": false, "SE": false, "RV": false,
}

// slurmWay is a way to ask squeue about jobs. read finds in the words of a line
// the names of a job and its state; ok is false if it finds none.
type slurmWay struct {
	args func(numbers string) []string
	read func(words []string, heading []string) (names []string, job slurmJob, ok bool)
}

// slurmWays begin with the way that tells most. A site may have a squeue of its
// own, with fewer options, so that the last one has none.
var slurmWays = []slurmWay{
	{
		func(numbers string) []string {
			return []string{"--noheader", "--array", "--states=all", "--jobs=" + numbers,
				"--Format=JobArrayID:40,JobID:20,State:20,RestartCnt:10"}
		},
		func(words, _ []string) (names []string, job slurmJob, ok bool) {
			if len(words) < 4 || !slurmLineRE.MatchString(words[1]) {
				return nil, job, false
			}
			restarts, err := strconv.Atoi(words[3])
			return words[:2], slurmJob{words[2], restarts}, err == nil || words[3] == "N/A"
		},
	},
	{
		func(numbers string) []string { return []string{"--jobs=" + numbers, "--format=%i %T"} },
		func(words, _ []string) (names []string, job slurmJob, ok bool) {
			if len(words) < 2 {
				return nil, job, false
			}
			return words[:1], slurmJob{words[1], -1}, true
		},
	},
	{
		func(string) []string { return nil },
		func(words, heading []string) (names []string, job slurmJob, ok bool) {
			at := max(slices.Index(heading, "ST"), slices.Index(heading, "STATE"))
			if at < 1 || at >= len(words) {
				return nil, job, false
			}
			return words[:1], slurmJob{words[at], -1}, true
		},
	},
}

// Gone reports whether the scheduler no longer runs the processes of a job,
// which is named as JobName names it. A job that was requeued is gone, even if
// it runs again, because it runs another process now. All jobs are gone if this
// machine has no Slurm or if another scheduler runs them: then only the lease
// decides. The error says why Slurm's answer tells nothing of the job.
func (j *Jobs) Gone(ctx context.Context, job string) (bool, error) {
	parts := slurmJobRE.FindStringSubmatch(job)
	if parts == nil {
		return true, nil
	}
	name, number := parts[1], parts[2]
	restarts, _ := strconv.Atoi(parts[3]) // "" is 0

	j.mu.Lock()
	defer j.mu.Unlock()
	j.refresh(ctx, number)
	if j.err != nil {
		if errors.Is(j.err, exec.ErrNotFound) {
			return true, nil
		}
		return false, j.err
	}
	now, ok := j.known[name]
	switch {
	case !ok || !slurmStates[now.state]:
		return true, nil
	case now.state == "COMPLETING":
		// A requeue is counted before the old processes have ended.
		return now.restarts > restarts+1, nil
	default:
		return now.restarts > restarts, nil
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
	slices.Sort(numbers)
	j.ask(ctx, numbers)
	// squeue may have taken longer than jobsAge, so its answer counts from now.
	j.time = time.Now()
}

// ask asks squeue in one way after the other until it understands an answer. All
// ways together may take squeueTime.
func (j *Jobs) ask(ctx context.Context, numbers []string) {
	ctx, cancel := context.WithTimeout(ctx, squeueTime)
	defer cancel()
	for way := j.way; way < len(slurmWays); way++ {
		out, err := squeue(ctx, cmp.Or(j.program, "squeue"), slurmWays[way].args(strings.Join(numbers, ","))...)
		var known map[string]slurmJob
		switch {
		case err == nil:
			known, err = slurmWays[way].jobs(string(out), numbers)
		case strings.Contains(err.Error(), "Invalid job id"):
			err = nil // Slurm has forgotten the only job that it was asked about
		}
		if err != nil && ctx.Err() != nil && way > j.way {
			return // the error of the way before says more
		}
		if j.known, j.err = known, err; err == nil {
			j.way = way
			return
		}
		if ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
			return
		}
	}
	j.way = 0
}

// jobs reads an answer of squeue. It passes over lines in which no job stands, like
// the news of a site. It returns an error if a line is about one of the numbers but
// has no state that is known, or if there are lines, and no job in any of them.
func (w slurmWay) jobs(out string, numbers []string) (known map[string]slurmJob, err error) {
	known = map[string]slurmJob{}
	var heading []string
	strange, understood := "", false
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "JOBID" {
			heading, understood = words, true
			continue
		}
		id := slurmLineRE.FindStringSubmatch(words[0])
		if id == nil {
			strange = cmp.Or(strange, line)
			continue
		}
		names, job, ok := w.read(words, heading)
		if _, isState := slurmStates[job.state]; !ok || !isState {
			if slices.Contains(numbers, id[1]) {
				return nil, unreadable(line)
			}
			strange = cmp.Or(strange, line)
			continue
		}
		understood = true
		for _, name := range names {
			known[name] = job
		}
	}
	if strange != "" && !understood {
		return nil, unreadable(strange)
	}
	return known, nil
}

// unreadable is the error for a line that tells nothing of a job.
func unreadable(line string) error {
	return fmt.Errorf("squeue answers %q, which is no list of jobs", excerpt(line))
}
