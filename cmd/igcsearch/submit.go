package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/store/fleet"
	"igcsearch/studies"
	"igcsearch/trainer"
)

func newSubmitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "submit",
		Short: "Hand a study to a scheduler, which runs its workers",
		Long: `submit hands the workers of a study to the scheduler that owns the machines.
igcsearch has no queue of its own: the scheduler decides which worker waits, starts
and ends. A worker that it stops gives its trials back, and others train them.`,
		Example: `  igcsearch submit slurm quickstart --workers 2 --coordinator --dry-run`,
	}
	cmd.AddCommand(newSubmitSlurmCommand(), newSubmitKubernetesCommand())
	helpOnly(cmd)
	return cmd
}

// planAt tells the coordinator of an access file to give out a study too.
func planAt(ctx context.Context, access, data string, study search.Study, stderr io.Writer) error {
	if _, err := fleet.ReadAccess(access); err != nil {
		return fmt.Errorf("%w; or let --coordinator submit one", advised(err))
	}
	study, trials, _, err := planned(ctx, trainer.New(trainer.Options{DataDir: data}), study, stderr)
	if err != nil {
		return err
	}
	_, err = fleet.Tell(ctx, access, fleetProgram(), study, trials)
	return err
}

// removeOver removes an access file whose coordinator has ended, because it
// would tell workers to end too.
func removeOver(path string) error {
	if old, err := fleet.ReadAccess(path); err == nil && old.Over != "" {
		return os.Remove(path)
	}
	return nil
}

// builtProgram returns the file of this program, for jobs that start later and
// elsewhere.
func builtProgram() (string, error) {
	if byGoRun() {
		return "", errors.New("go run removes its program when it ends, before a job starts: " +
			"build one with go build ./cmd/igcsearch and submit with that")
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program that the jobs start: %w", err)
	}
	return path, nil
}

// absolute makes paths independent of the present folder. It leaves "".
func absolute(paths ...*string) error {
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// absoluteStudy returns the argument STUDY for another folder: the name of a
// shipped or stored study, or the absolute path of a file.
func absoluteStudy(nameOrFile string) (string, error) {
	if _, err := studies.Source(nameOrFile); err == nil {
		return nameOrFile, nil
	}
	if _, err := os.Stat(nameOrFile); err != nil {
		return nameOrFile, nil
	}
	return filepath.Abs(nameOrFile)
}

// check finds flags that contradict one another.
func (o slurmOptions) check() error {
	switch {
	case o.workers == 0:
		return errors.New("--workers is missing: how many workers?")
	case o.Spool != "" && (o.Coordinator || o.Access != ""):
		return errors.New("--spool is for workers without a coordinator: " +
			"leave out --coordinator and --access, or --spool")
	case o.Spool == "" && !o.Coordinator && o.Access == "":
		return errors.New("where do workers get their trials? want --coordinator, which starts one, " +
			"--access FILE of one that runs, or --spool DIR")
	case o.coordinatorArgs != "" && !o.Coordinator:
		return errors.New("--coordinator-args is for --coordinator: give that too")
	case o.Notice < time.Second || o.Notice > 65535*time.Second || o.Notice%time.Second != 0:
		return fmt.Errorf("--notice %s: want whole seconds, 1s to 65535s", o.Notice) // Slurm has 16 bits for it
	}
	return nil
}

// complete fills in what no flag says, and makes the paths absolute.
func (o *slurmOptions) complete(study string) (err error) {
	o.Study, o.Workers, o.AtMost, o.TrialsPerWorker = study, int(o.workers), int(o.atMost), int(o.trialsPerWorker)
	o.Device, o.CoordinatorArgs = o.device.text, strings.Fields(o.coordinatorArgs)
	if o.Coordinator && o.Access == "" {
		o.Access = filepath.Join(filepath.Dir(o.DB), study+".access")
	}
	if o.Program, err = builtProgram(); err != nil {
		return err
	}
	if o.Source, err = absoluteStudy(o.Source); err != nil {
		return err
	}
	return absolute(&o.DB, &o.Data, &o.Access, &o.Spool)
}
