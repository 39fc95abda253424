package main

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
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/store/fleet"
)

type submitSlurmOptions struct {
	study           string
	set             []string
	workers         positive // of the array; 0: not given
	atMost          positive // at once; 0: as many as Slurm likes
	access          string
	spool           string
	coordinator     bool
	db              string
	data            string
	device          device
	trialsPerWorker positive // 0: what the worker finds best
	notice          time.Duration
	coordinatorArgs string
	sbatchArgs      []string
	dryRun          bool
}

func newSubmitSlurmCommand() *cobra.Command {
	var o submitSlurmOptions
	cmd := &cobra.Command{
		Use:   "slurm STUDY --workers W (--coordinator | --access FILE | --spool DIR) [-- SBATCH ARGS]",
		Short: "Submit a study to Slurm as an array of workers",
		Long: `slurm submits one job array with a worker of the study in each task, prints the
numbers of the jobs and returns at once. What follows -- is given to sbatch as it
is and takes precedence: the partition, the GPUs, the time limit of a worker.

The workers get their trials from one place, on a file system that all nodes see:
  --coordinator   a small job of its own, submitted before the array; it keeps the
                  database, and ends with the study
  --access FILE   the coordinator that runs already: igcsearch serve --access FILE
  --spool DIR     no server, only a folder; igcsearch collect DIR brings the results
                  into a database

A worker gives its trials back when Slurm preempts, requeues or cancels its job,
and --notice before the time limit; another goes on from their last epoch. A
requeued job starts its worker again. One that reached its time limit is not
started again: let --workers be more than run at once, and --at-most say how many
may. STUDY and --set are checked now and read again by the jobs.`,
		Example: `  # four workers, each with a GPU for four hours, and their coordinator
  igcsearch submit slurm fig3a --workers 4 --coordinator --data pictures -- --gres=gpu:1 --time=4:00:00

  # what would be submitted? (also where there is no Slurm)
  igcsearch submit slurm quickstart --workers 2 --coordinator --dry-run

  # a hundred tasks one after another, ten at once, where nodes reach no server
  igcsearch submit slurm quickstart --workers 100 --at-most 10 --spool spool --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return oneStudy(cmd, args)
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study, o.sbatchArgs = args[0], args[1:]
			return runSubmitSlurm(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addDevice(cmd, &o.device)
	flags := cmd.Flags()
	flags.Var(&o.workers, "workers", "tasks of the array, a worker in each")
	flags.Var(&o.atMost, "at-most", "workers at once (default all)")
	flags.Var(&o.trialsPerWorker, "trials-per-worker", "trials that a worker trains at once (default what it is fastest with)")
	for _, name := range []string{"workers", "at-most", "trials-per-worker"} {
		cmd.Flag(name).DefValue = ""
	}
	flags.BoolVar(&o.coordinator, "coordinator", false, "also submit the coordinator, for the database of --db")
	flags.StringVar(&o.access, "access", "", "the `FILE` by which workers find the coordinator (default with --coordinator STUDY.access beside the database)")
	flags.StringVar(&o.spool, "spool", "", "the `DIR` by which workers share the trials without a coordinator")
	flags.StringArrayVar(&o.set, "set", nil, "override one setting of the study, as `key=value`; may be repeated")
	flags.DurationVar(&o.notice, "notice", 2*time.Minute, "how long before its time limit a worker is told to give its trials back; an epoch that ends meanwhile is kept")
	flags.StringVar(&o.coordinatorArgs, "coordinator-args", "", "`ARGS` of sbatch for the coordinator's job, separated by blanks, like \"--partition=cpu --time=7-0\"")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print what would be submitted, as a shell script, and submit nothing")
	return cmd
}

func runSubmitSlurm(ctx context.Context, o submitSlurmOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	bin, err := builtProgram()
	if err != nil {
		return err
	}
	if o.study, err = absoluteStudy(o.study); err != nil {
		return err
	}
	if o.coordinator && o.access == "" {
		o.access = filepath.Join(filepath.Dir(o.db), study.Name+".access")
	}
	if err := absolute(&o.db, &o.data, &o.access, &o.spool); err != nil {
		return err
	}
	place := cmp.Or(o.spool, o.access)
	if o.coordinator {
		place = o.db
	}
	logs := filepath.Join(filepath.Dir(place), study.Name+".logs")

	array := o.array(bin, study.Name, logs)
	var coordinator sbatchJob
	if o.coordinator {
		coordinator = o.coordinatorJob(bin, study.Name, logs)
	}
	if o.dryRun {
		return o.print(stdout, logs, coordinator, array)
	}
	if _, err := exec.LookPath("sbatch"); err != nil {
		return errors.New("submit: there is no sbatch: run this on a machine of the Slurm cluster, or see with --dry-run what it would submit")
	}
	if !o.coordinator && o.spool == "" {
		if err := planAt(ctx, o.access, o.data, study, stderr); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(logs, 0o777); err != nil { // Slurm ends jobs whose log it cannot write
		return fmt.Errorf("submit: %w", err)
	}

	cancel := "" // what to stop, workers first: they give their trials back
	watch := ""
	if o.coordinator {
		// One of a coordinator that has ended would send workers home.
		if a, err := fleet.ReadAccess(o.access); err == nil && a.Over != "" {
			if err := os.Remove(o.access); err != nil {
				return fmt.Errorf("submit: %w", err)
			}
		}
		id, err := coordinator.submit(ctx)
		if err != nil {
			return fmt.Errorf("submit the coordinator: %w", err)
		}
		fmt.Fprintf(stdout, "coordinator %s\n", id)
		array.args = append([]string{"--dependency=after:" + id}, array.args...)
		cancel, watch = " "+id, id+","
	}
	id, err := array.submit(ctx)
	if err != nil {
		if o.coordinator {
			// Alone it would wait for workers until its time limit.
			if stop := exec.CommandContext(context.WithoutCancel(ctx), "scancel", strings.TrimSpace(cancel)).Run(); stop != nil {
				fmt.Fprintf(stderr, "igcsearch: the coordinator waits for workers in vain: scancel%s\n", cancel)
			}
		}
		return fmt.Errorf("submit the workers: %w", err)
	}
	if _, err := fmt.Fprintf(stdout, "workers %s\n", id); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "watch     squeue --jobs=%s%s\n", watch, id)
	if o.spool != "" {
		fmt.Fprintf(stderr, "collect   %s collect %s --db %s\n", program(), quote(o.spool), quote(o.db))
	} else {
		fmt.Fprintf(stderr, "status    %s status %s --db %s\n", program(), quote(study.Name), quote(o.access))
	}
	fmt.Fprintf(stderr, "stop      scancel %s%s\nlogs      %s\n", id, cancel, logs)
	return nil
}

// check is of the flags that depend on one another.
func (o submitSlurmOptions) check() error {
	switch {
	case o.workers == 0:
		return errors.New("--workers is missing: how many workers?")
	case o.spool != "" && (o.coordinator || o.access != ""):
		return errors.New("--spool is for workers without a coordinator: leave out --coordinator and --access, or --spool")
	case o.spool == "" && !o.coordinator && o.access == "":
		return errors.New("where do workers get their trials? want --coordinator, which starts one, --access FILE of one that runs, or --spool DIR")
	case o.coordinatorArgs != "" && !o.coordinator:
		return errors.New("--coordinator-args is for --coordinator: give that too")
	case o.notice < time.Second || o.notice > 65535*time.Second || o.notice%time.Second != 0:
		return fmt.Errorf("--notice %s: want whole seconds, 1s to 65535s", o.notice) // Slurm has 16 bits for it
	}
	return nil
}

// grace is how long a worker that is told may go on: Slurm ends it after the
// notice, and it needs some of that to deliver.
func (o submitSlurmOptions) grace() time.Duration {
	return (o.notice - min(o.notice/4, 30*time.Second)).Round(time.Second)
}

// sbatchJob is a job as sbatch is given it.
type sbatchJob struct {
	args   []string
	script string
}

// array is the job array of the workers.
func (o submitSlurmOptions) array(bin, study, logs string) sbatchJob {
	tasks := fmt.Sprintf("0-%d", o.workers-1)
	if o.atMost > 0 {
		tasks += fmt.Sprintf("%%%d", o.atMost)
	}
	args := []string{
		"--parsable", "--array=" + tasks, "--requeue",
		fmt.Sprintf("--signal=B:USR1@%d", int(o.notice.Seconds())),
		"--open-mode=append", // a requeued job goes on with its log
		"--job-name=igcsearch-" + study, "--output=" + logName(logs, "worker-%A_%a.log"),
	}
	var words []string
	if o.spool != "" {
		words = append(words, "worker", o.study, "--spool", o.spool)
		words = append(words, repeated("--set", o.set)...)
	} else {
		words = append(words, "worker", study, "--access", o.access)
	}
	if o.data != "" {
		words = append(words, "--data", o.data)
	}
	if o.device.text != "" {
		words = append(words, "--device", o.device.text)
	}
	if o.trialsPerWorker > 0 {
		words = append(words, "--workers", strconv.Itoa(int(o.trialsPerWorker)))
	}
	words = append(words, "--grace", o.grace().String())
	return sbatchJob{append(args, o.sbatchArgs...), script(bin, words)}
}

// coordinatorJob is the job of the process that hands out the trials.
func (o submitSlurmOptions) coordinatorJob(bin, study, logs string) sbatchJob {
	args := []string{
		"--parsable", "--ntasks=1", "--cpus-per-task=1", "--requeue", "--open-mode=append",
		"--job-name=igcsearch-" + study + "-coordinator", "--output=" + logName(logs, "coordinator-%j.log"),
	}
	words := []string{"serve", o.study}
	words = append(words, repeated("--set", o.set)...)
	words = append(words, "--db", o.db, "--access", o.access, "--listen", ":0", "--until-done")
	if o.data != "" {
		words = append(words, "--data", o.data)
	}
	return sbatchJob{append(args, strings.Fields(o.coordinatorArgs)...), script(bin, words)}
}

func repeated(flag string, values []string) []string {
	var words []string
	for _, v := range values {
		words = append(words, flag, v)
	}
	return words
}

// script is what sbatch runs. The program takes the place of the shell, which
// is the process that Slurm signals first and alone (--signal=B:).
func script(bin string, words []string) string {
	line := "exec " + quote(bin)
	for _, w := range words {
		line += " " + quote(w)
	}
	return "#!/bin/sh\n" + line + "\n"
}

// logName is a path for --output; only those of name are Slurm's patterns.
func logName(dir, name string) string {
	return strings.ReplaceAll(dir, "%", "%%") + string(filepath.Separator) + name
}

// submit returns the number of the job.
func (j sbatchJob) submit(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "sbatch", j.args...)
	cmd.Stdin = strings.NewReader(j.script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if line := lastLine(stderr.String()); line != "" {
			return "", errors.New(line) // "sbatch: error: …"
		}
		return "", fmt.Errorf("sbatch: %w", err)
	}
	id, _, _ := strings.Cut(strings.TrimSpace(string(out)), ";") // and the cluster, where there are several
	if _, err := strconv.Atoi(id); err != nil {
		return "", fmt.Errorf("sbatch: it printed %q, want the number of a job", strings.TrimSpace(string(out)))
	}
	return id, nil
}

// print writes the jobs as a shell script that submits them.
func (o submitSlurmOptions) print(stdout io.Writer, logs string, coordinator, array sbatchJob) error {
	var b strings.Builder
	fmt.Fprintf(&b, "mkdir -p %s\n", quote(logs))
	after := ""
	if o.coordinator {
		fmt.Fprintf(&b, "coordinator=$(%s)\n", coordinator.command(""))
		after = ` --dependency=after:"${coordinator%%;*}"`
	}
	b.WriteString(array.command(after))
	_, err := io.WriteString(stdout, b.String())
	return err
}

// command is the job as a command of a shell; after comes first, as it is.
func (j sbatchJob) command(after string) string {
	line := "sbatch" + after
	for _, a := range j.args {
		line += " " + quote(a)
	}
	return line + " <<'SCRIPT'\n" + j.script + "SCRIPT\n"
}
