package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
)

// Slurm describes the jobs that train a study: an array with a worker in each
// task and, if Coordinator is set, the coordinator. All paths are absolute,
// because the jobs run in another folder.
type Slurm struct {
	Study   string   // the name of the study, which the names of the jobs contain
	Source  string   // STUDY as the jobs read it: a shipped name or a file
	Set     []string // the settings --set of the study
	Program string   // igcsearch

	Workers         int    // tasks of the array
	AtMost          int    // tasks that run at once; 0: as many as Slurm starts
	Device          string // of each worker; "": auto
	TrialsPerWorker int    // 0: the worker decides
	// Notice is how long before its time limit Slurm sends a worker SIGUSR1.
	Notice time.Duration

	// The workers get their trials from the coordinator of Access, or from the
	// folder Spool.
	Access, Spool string
	Coordinator   bool   // submit a coordinator too
	DB            string // of the coordinator
	Data          string // folder of the pictures, "": none

	// WorkerArgs and CoordinatorArgs are more arguments of sbatch. They take
	// precedence over ours.
	WorkerArgs, CoordinatorArgs []string
}

// Logs returns the folder of the jobs' logs. It lies where the workers get
// their trials.
func (s Slurm) Logs() string {
	place := cmp.Or(s.Spool, s.Access)
	if s.Coordinator {
		place = s.DB
	}
	return filepath.Join(filepath.Dir(place), s.Study+".logs")
}

// ErrNoSlurm says that this machine has no sbatch.
var ErrNoSlurm = errors.New("there is no sbatch")

// Submitted has the numbers of jobs, as squeue and scancel take them.
type Submitted struct {
	Workers     string
	Coordinator string // "" without one
}

// Submit submits the jobs. If it fails after the coordinator was submitted, it
// cancels the coordinator, which would wait for workers until its time limit.
func (s Slurm) Submit(ctx context.Context) (Submitted, error) {
	var jobs Submitted
	if err := os.MkdirAll(s.Logs(), 0o777); err != nil { // Slurm ends a job whose log it cannot write
		return jobs, err
	}
	workers := s.workers()
	if s.Coordinator {
		id, err := s.coordinator().submit(ctx)
		if err != nil {
			return jobs, fmt.Errorf("submit the coordinator: %w", err)
		}
		jobs.Coordinator = id
		workers.args = append([]string{"--dependency=after:" + id}, workers.args...)
	}
	id, err := workers.submit(ctx)
	if err == nil {
		jobs.Workers = id
		return jobs, nil
	}
	err = fmt.Errorf("submit the workers: %w", err)
	if id := jobs.Coordinator; id != "" && exec.CommandContext(context.WithoutCancel(ctx), "scancel", id).Run() != nil {
		err = fmt.Errorf("%w; the coordinator waits for workers that will not come, so end it: scancel %s", err, id)
	}
	return jobs, err
}

// Script returns a shell script that submits the jobs.
func (s Slurm) Script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mkdir -p %s\n", Quote(s.Logs()))
	after := ""
	if s.Coordinator {
		fmt.Fprintf(&b, "coordinator=$(%s)\n", s.coordinator().command(""))
		after = ` --dependency=after:"${coordinator%%;*}"`
	}
	b.WriteString(s.workers().command(after))
	return b.String()
}

// grace returns how long a worker may train on after Slurm has told it to end.
// Slurm ends it after Notice, and the worker needs some of that time to
// deliver what it has trained.
func (s Slurm) grace() time.Duration {
	return (s.Notice - min(s.Notice/4, 30*time.Second)).Round(time.Second)
}

// sbatchJob is a job as sbatch takes it.
type sbatchJob struct {
	args   []string
	script string
}

// workers returns the job array of the workers.
func (s Slurm) workers() sbatchJob {
	tasks := fmt.Sprintf("0-%d", s.Workers-1)
	if s.AtMost > 0 {
		tasks += fmt.Sprintf("%%%d", s.AtMost)
	}
	args := []string{
		"--parsable", "--array=" + tasks, "--requeue",
		fmt.Sprintf("--signal=B:USR1@%d", int(s.Notice.Seconds())),
		"--open-mode=append", // a requeued job goes on with its log
		"--job-name=igcsearch-" + s.Study, s.output("worker-%A_%a.log"),
	}
	words := []string{"worker"}
	if s.Spool != "" {
		words = append(words, s.Source, "--spool", s.Spool)
		words = append(words, setArgs(s.Set)...)
	} else {
		words = append(words, s.Study, "--access", s.Access)
	}
	if s.Data != "" {
		words = append(words, "--data", s.Data)
	}
	if s.Device != "" {
		words = append(words, "--device", s.Device)
	}
	if s.TrialsPerWorker > 0 {
		words = append(words, "--workers", strconv.Itoa(s.TrialsPerWorker))
	}
	words = append(words, "--grace", s.grace().String())
	return sbatchJob{append(args, s.WorkerArgs...), s.script(words)}
}

// coordinator returns the job of the process that gives out the trials.
func (s Slurm) coordinator() sbatchJob {
	args := []string{
		"--parsable", "--ntasks=1", "--cpus-per-task=1", "--requeue", "--open-mode=append",
		"--job-name=igcsearch-" + s.Study + "-coordinator", s.output("coordinator-%j.log"),
	}
	words := append([]string{"serve", s.Source}, setArgs(s.Set)...)
	words = append(words, "--db", s.DB, "--access", s.Access, "--listen", ":0", "--until-done")
	if s.Data != "" {
		words = append(words, "--data", s.Data)
	}
	return sbatchJob{append(args, s.CoordinatorArgs...), s.script(words)}
}

// setArgs returns the arguments for the settings --set of a study.
func setArgs(set []string) []string {
	var words []string
	for _, v := range set {
		words = append(words, "--set", v)
	}
	return words
}

// output returns the argument for a log. Slurm replaces patterns such as %j in
// name, but not in the folder.
func (s Slurm) output(name string) string {
	return "--output=" + strings.ReplaceAll(s.Logs(), "%", "%%") + string(filepath.Separator) + name
}

// script returns what a job runs. igcsearch replaces the shell, because Slurm
// sends its signal only to the shell (--signal=B:).
func (s Slurm) script(args []string) string {
	return "#!/bin/sh\nexec " + shellLine(append([]string{s.Program}, args...)...) + "\n"
}

// submit gives the job to sbatch and returns its number.
func (j sbatchJob) submit(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "sbatch", j.args...)
	cmd.Stdin = strings.NewReader(j.script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", ErrNoSlurm
	case err != nil:
		if line := search.LastLine(stderr.String()); line != "" {
			return "", errors.New(line) // "sbatch: error: …"
		}
		return "", fmt.Errorf("sbatch: %w", err)
	}
	text := strings.TrimSpace(string(out))
	id, _, _ := strings.Cut(text, ";") // the name of the cluster follows if there are several
	if _, err := strconv.Atoi(id); err != nil {
		return "", fmt.Errorf("sbatch printed %q, not the number of a job", text)
	}
	return id, nil
}

// command returns the job as a command of a shell. after is put behind sbatch
// as it is.
func (j sbatchJob) command(after string) string {
	return "sbatch" + after + " " + shellLine(j.args...) + " <<'SCRIPT'\n" + j.script + "SCRIPT\n"
}
