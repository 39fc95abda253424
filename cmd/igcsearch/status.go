package main

import (
	"context"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

type statusOptions struct {
	study, db, format string
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [STUDY]",
		Short: "Show where the trials of a study stand, or list the studies",
		Long: `status shows every trial of a study: pending, running, done, diverged (its loss was
not finite), failed (igcsearch retry lets it be tried again), or interrupted (it was
running when its process was killed; the next run continues it). Without STUDY it
lists the studies of the database. Of a strategy other than grid it says how many
trainings it has needed, or not. It may be called while the study runs. Workers on
other machines are shown with their job, node and device, and what they train. --db
also takes the access file of a coordinator.`,
		Example: `  igcsearch status

  igcsearch status quickstart

  # for other programs
  igcsearch status quickstart --format json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneStudy(cmd, args)
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return runStatusList(cmd.Context(), o, cmd.OutOrStdout())
			}
			o.study = args[0]
			return runStatus(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.format, "format", "how to print the trials", "table", "json")
	return cmd
}

// runStatusList lists the studies of a database.
func runStatusList(ctx context.Context, o statusOptions, stdout io.Writer) error {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	infos, err := db.Studies(ctx)
	if err != nil {
		return err
	}
	return report.Studies{Database: o.db, List: infos}.Print(stdout, o.format)
}

func runStatus(ctx context.Context, o statusOptions, stdout io.Writer) error {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	s := report.Status{}
	if s.Results, err = readResults(ctx, db, o.study, store.Histories, store.Attempts); err != nil {
		return err
	}
	if s.Workers, err = db.Workers(ctx); err != nil {
		return err
	}
	if slices.ContainsFunc(s.Trials, func(t search.TrialState) bool { return t.Status == search.Running }) {
		s.Left = progress.TimeLeft(s.Forecast(), s.Study)
	}
	return s.Print(stdout, o.format)
}
