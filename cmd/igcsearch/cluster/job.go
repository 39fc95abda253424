// Package cluster hands workers to a scheduler. It writes the jobs of Slurm and
// the manifest of Kubernetes, and asks Slurm which jobs still run.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
)

// JobName returns the scheduler's name of the job that this process is part
// of, "" outside a scheduler. In Slurm it is the job with its array task,
// "slurm 123_4", or "slurm 123". ".5" is added if the job has several tasks.
// " restart 1" is added if Slurm requeued the job once, because the job keeps
// its number then. In a pod of Kubernetes the name is "kubernetes POD".
func JobName(getenv func(string) string) string {
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

// slurmID returns the job as squeue and scancel name it, "" outside Slurm.
func slurmID(getenv func(string) string) string {
	array, task := getenv("SLURM_ARRAY_JOB_ID"), getenv("SLURM_ARRAY_TASK_ID")
	if array != "" && task != "" {
		return array + "_" + task
	}
	return getenv("SLURM_JOB_ID")
}

// JobEnd returns when the scheduler ends the job of this process. It returns
// false if there is no time limit, or if the scheduler does not tell it.
func JobEnd(ctx context.Context, getenv func(string) string) (time.Time, bool) {
	id := slurmID(getenv)
	if id == "" {
		return time.Time{}, false
	}
	// Versions of Slurm after 22.05 set this variable.
	if unix, err := strconv.ParseInt(getenv("SLURM_JOB_END_TIME"), 10, 64); err == nil && unix > 0 {
		return time.Unix(unix, 0), true
	}
	asked := time.Now()
	out, err := squeue(ctx, "squeue", "--jobs="+id, "--format=%L")
	if err != nil {
		return time.Time{}, false
	}
	text := strings.TrimSpace(string(out))
	if text == "INVALID" { // the limit has passed, and Slurm ends the job soon
		return asked, true
	}
	left, ok := slurmTime(text)
	return asked.Add(left), ok
}

// slurmTimeRE matches a time as Slurm writes it: [days-][hours:]minutes:seconds.
var slurmTimeRE = regexp.MustCompile(`^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)$`)

// slurmTime reads a time that Slurm wrote. It returns false for UNLIMITED and
// other words.
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

// squeueTime is how long squeue may take. It waits while Slurm's controller
// does not answer.
const squeueTime = 10 * time.Second

// squeue runs squeue without headings and returns what it prints. The error
// contains the last line that squeue wrote to standard error.
func squeue(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, squeueTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--noheader"}, args...)...)
	cmd.WaitDelay = time.Second
	// The user's settings of squeue would change the format of the answer.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SQUEUE_") })
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if line := search.LastLine(stderr.String()); line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
		return nil, err
	}
	return out, nil
}
