package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
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
	Cluster     string // the name of the cluster, if there are several and sbatch names it
	// Warnings are oddities in sbatch's answers, which did not keep it from submitting.
	Warnings []string
}

// Submit submits the jobs. If it fails after the coordinator was submitted, it
// cancels the coordinator, which would wait for workers until its time limit.
// What has begun is finished or cancelled even if ctx ends.
func (s Slurm) Submit(ctx context.Context) (Submitted, error) {
	var jobs Submitted
	if err := os.MkdirAll(s.Logs(), 0o777); err != nil { // Slurm ends a job whose log it cannot write
		return jobs, err
	}
	lasting := context.WithoutCancel(ctx)
	workers := s.workers()
	var err error
	if s.Coordinator {
		if jobs.Coordinator, err = s.coordinator().submit(lasting, &jobs); err != nil {
			return jobs, fmt.Errorf("submit the coordinator: %w", err)
		}
		workers.args = append([]string{"--dependency=after:" + jobs.Coordinator}, workers.args...)
	}
	if err = ctx.Err(); err == nil {
		jobs.Workers, err = workers.submit(lasting, &jobs)
	}
	if err == nil {
		return jobs, nil
	}
	err = fmt.Errorf("submit the workers: %w", err)
	if jobs.Coordinator == "" {
		return jobs, err
	}
	cancel := append(jobs.ClusterArgs(), jobs.Coordinator)
	if _, failed := slurmCommand(lasting, scancelTime, nil, "scancel", cancel...); failed != nil {
		return jobs, fmt.Errorf("%w; the coordinator waits for workers that will not come, so end it: scancel %s (%w)",
			err, shellLine(cancel...), failed)
	}
	return jobs, fmt.Errorf("%w; so the coordinator was cancelled too", err)
}

// ClusterArgs returns the arguments by which squeue and scancel find the jobs.
func (s Submitted) ClusterArgs() []string {
	if s.Cluster == "" {
		return nil
	}
	return []string{"--clusters=" + s.Cluster}
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
	name   string
	args   []string
	script string
}

// workers returns the job array of the workers.
func (s Slurm) workers() sbatchJob {
	tasks := fmt.Sprintf("0-%d", s.Workers-1)
	if s.AtMost > 0 {
		tasks += fmt.Sprintf("%%%d", s.AtMost)
	}
	name := "igcsearch-" + s.Study
	args := []string{
		"--parsable", "--array=" + tasks, "--requeue",
		fmt.Sprintf("--signal=B:USR1@%d", int(s.Notice.Seconds())),
		"--open-mode=append", // a requeued job goes on with its log
		"--job-name=" + name, s.output("worker-%A_%a.log"),
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
	return sbatchJob{name, append(args, s.WorkerArgs...), s.script(words)}
}

// coordinator returns the job of the process that gives out the trials.
func (s Slurm) coordinator() sbatchJob {
	name := "igcsearch-" + s.Study + "-coordinator"
	args := []string{
		"--parsable", "--ntasks=1", "--cpus-per-task=1", "--requeue", "--open-mode=append",
		"--job-name=" + name, s.output("coordinator-%j.log"),
	}
	words := append([]string{"serve", s.Source}, setArgs(s.Set)...)
	words = append(words, "--db", s.DB, "--access", s.Access, "--listen", ":0", "--until-done")
	if s.Data != "" {
		words = append(words, "--data", s.Data)
	}
	return sbatchJob{name, append(args, s.CoordinatorArgs...), s.script(words)}
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

// submit gives the job to sbatch and returns its number. It notes the cluster and
// the warnings in jobs.
func (j sbatchJob) submit(ctx context.Context, jobs *Submitted) (string, error) {
	out, err := slurmCommand(ctx, sbatchTime, strings.NewReader(j.script), "sbatch", j.args...)
	if errors.Is(err, exec.ErrNotFound) {
		return "", ErrNoSlurm
	}
	id, cluster, ok := jobNumber(string(out), err != nil)
	switch {
	case ok && err != nil:
		jobs.Warnings = append(jobs.Warnings, fmt.Sprintf("sbatch named job %s, so it is taken as submitted, "+
			"but then sbatch failed: %v", id, err))
	case ok:
	case err == nil:
		return "", fmt.Errorf("sbatch answers %q, and which number is that of the job cannot be told: %s",
			excerpt(string(out)), j.unknown())
	case errors.Is(err, context.DeadlineExceeded):
		return "", fmt.Errorf("%w: %s", err, j.unknown())
	default:
		return "", err
	}
	if cluster != "" {
		jobs.Cluster = cluster
	}
	return id, nil
}

// unknown says what to do about a job whose number is not known.
func (j sbatchJob) unknown() string {
	return "it may have submitted a job, and if squeue shows one, end it: scancel --user=$USER --name=" + Quote(j.name)
}

var (
	parsableRE  = regexp.MustCompile(`^([1-9]\d*)(?:;(\S+))?$`)
	submittedRE = regexp.MustCompile(`(?i)submitted batch job ([1-9]\d*)(?: on cluster (\S+))?`)
)

// jobNumber finds the number of a job in the answer of sbatch, and the cluster if the
// answer names it. A site may print its news beside what --parsable prints, or a
// sentence in place of it. After a failure a number in some sentence tells nothing.
func jobNumber(answer string, failed bool) (id, cluster string, ok bool) {
	var found [][]string
	for line := range strings.Lines(answer) {
		if m := parsableRE.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			found = append(found, m)
		}
	}
	if found == nil {
		found = submittedRE.FindAllStringSubmatch(answer, -1)
	}
	if found == nil && !failed {
		for _, word := range strings.Fields(answer) {
			if m := parsableRE.FindStringSubmatch(strings.Trim(word, `.,:;!?()[]<>"'#`)); m != nil {
				found = append(found, m)
			}
		}
	}
	found = slices.CompactFunc(found, func(a, b []string) bool { return a[1] == b[1] })
	if len(found) != 1 {
		return "", "", false
	}
	return found[0][1], found[0][2], true
}

// command returns the job as a command of a shell. after is put behind sbatch
// as it is.
func (j sbatchJob) command(after string) string {
	return "sbatch" + after + " " + shellLine(j.args...) + " <<'SCRIPT'\n" + j.script + "SCRIPT\n"
}
