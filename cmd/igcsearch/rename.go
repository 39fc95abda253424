package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/search"
)

type renameOptions struct {
	study, other, db string
}

func newRenameCommand() *cobra.Command {
	var o renameOptions
	cmd := &cobra.Command{
		Use:   "rename STUDY NEW",
		Short: "Give a stored study another name",
		Long: `rename gives a study of a database another name, with all that is stored of it. It is
refused while processes train the study. A study file has to get the new name too.`,
		Example: `  igcsearch rename long twenty-epochs`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("want two names, of a stored study and the new one")
			}
			return nil
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study, o.other = args[0], args[1]
			return runRename(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	return cmd
}

func runRename(ctx context.Context, o renameOptions, stdout io.Writer) error {
	if err := search.CheckName(o.other); err != nil {
		return usageError{err}
	}
	db, found, err := openStudy(ctx, o.db, o.study)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Rename(ctx, found.Study.Name, o.other); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s is %s now\n", found.Study.Name, o.other)
	return err
}
