package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/studies"
)

type studiesOptions struct {
	db string // "" lists no database
}

func newStudiesCommand() *cobra.Command {
	var o studiesOptions
	cmd := &cobra.Command{
		Use:   "studies",
		Short: "List the shipped studies, and those of a database",
		Long: `studies lists the studies that are part of the program and, with --db, those of a
database.`,
		Example: `  igcsearch studies

  # the studies with results
  igcsearch studies --db igcsearch.db

  # make a study of your own
  igcsearch studies show quickstart > mine.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStudies(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Args = knownCommand
	cmd.Flags().StringVar(&o.db, "db", "", "also list the studies of this database `FILE`")
	cmd.AddCommand(newStudiesShowCommand())
	return cmd
}

func runStudies(ctx context.Context, o studiesOptions, stdout io.Writer) error {
	t := report.NewTable("<study", "networks", "seeds", "epochs", "<dataset", "<what")
	for _, name := range studies.Names() {
		s, err := studies.Load(name, nil)
		if err != nil {
			return err
		}
		t.Add(name, fmt.Sprint(len(s.SystemList())), fmt.Sprint(len(s.Seeds)), fmt.Sprint(s.Epochs), s.Dataset, s.Title)
	}
	if _, err := fmt.Fprint(stdout, t); err != nil || o.db == "" {
		return err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	infos, err := db.Studies(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	return report.Studies{Database: o.db, List: infos}.Print(stdout, "table")
}

func newStudiesShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Print the file of a study that is part of the program",
		Example: `  igcsearch studies show fig3a-short`,
		Args:    oneStudy,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return studies.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := studies.Source(args[0])
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
