// Package cluster hands workers to a scheduler. It writes the jobs of Slurm and
// the manifest of Kubernetes, and asks Slurm which jobs still run.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
// false if there is no time limit, or if the scheduler does not tell it. The error
// says why it does not.
func JobEnd(ctx context.Context, getenv func(string) string) (end time.Time, known bool, err error) {
	id := slurmID(getenv)
	if id == "" {
		return time.Time{}, false, nil
	}
	// Versions of Slurm after 22.05 set this variable.
	if unix, err := strconv.ParseInt(getenv("SLURM_JOB_END_TIME"), 10, 64); err == nil && unix > 0 {
		return time.Unix(unix, 0), true, nil
	}
	asked := time.Now()
	out, err := squeue(ctx, "squeue", "--noheader", "--jobs="+id, "--format=%L")
	if err != nil {
		return time.Time{}, false, err
	}
	for line := range strings.Lines(string(out)) { // beside the news of a site
		switch text := strings.TrimSpace(line); text {
		case "UNLIMITED", "NOT_SET":
			return time.Time{}, false, nil
		case "INVALID": // the limit has passed, and Slurm ends the job soon
			return asked, true, nil
		default:
			if left, ok := slurmTime(text); ok {
				return asked.Add(left), true, nil
			}
		}
	}
	return time.Time{}, false, fmt.Errorf("squeue answers %q, which is no time", excerpt(string(out)))
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

// How long commands of Slurm may take. They wait while its controller does not
// answer.
const (
	squeueTime  = 10 * time.Second
	scancelTime = 30 * time.Second
	sbatchTime  = time.Minute
)

// squeue runs squeue and returns what it prints.
func squeue(ctx context.Context, program string, args ...string) ([]byte, error) {
	return slurmCommand(ctx, squeueTime, nil, program, args...)
}

// maxAnswer bounds what is kept of the answer of a command, in bytes.
const maxAnswer = 64 << 20

// slurmCommand runs a command and returns what it prints, beside an error too. The
// error has the last line that the command wrote to standard error. When the time
// is over it ends the command, with all processes that the command has started.
func slurmCommand(
	ctx context.Context, limit time.Duration, stdin io.Reader, program string, args ...string,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	// The user's settings of squeue would change the format of the answer.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SQUEUE_") })
	var stdout, stderr answer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	name := filepath.Base(program)
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success():
		return stdout.Bytes(), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return stdout.Bytes(), fmt.Errorf("%s gave no answer within %v: %w", name, limit, ctx.Err())
	case errors.Is(err, exec.ErrNotFound):
		return nil, err
	}
	err = fmt.Errorf("%s: %w", name, err)
	if line := search.LastLine(stderr.String()); line != "" {
		err = commandError{line, err}
	}
	return stdout.Bytes(), err
}

// commandError is the error of a command, in the command's own words.
type commandError struct {
	line string
	error
}

func (e commandError) Error() string { return e.line }

func (e commandError) Unwrap() error { return e.error }

// answer keeps the first maxAnswer bytes of what a command writes.
type answer struct{ kept bytes.Buffer }

func (a *answer) Write(p []byte) (int, error) {
	a.kept.Write(p[:min(len(p), maxAnswer-a.kept.Len())])
	return len(p), nil
}

func (a *answer) Bytes() []byte { return a.kept.Bytes() }

func (a *answer) String() string { return a.kept.String() }

// excerpt returns the beginning of an answer, for a message.
func excerpt(text string) string {
	line := []rune(strings.TrimSpace(text))
	if len(line) > 200 {
		return string(line[:200]) + "…"
	}
	return string(line)
}
