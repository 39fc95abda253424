package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

type backupOptions struct {
	db, output string
}

func newBackupCommand() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy a database to a new file, also while studies run",
		Long: `backup copies a database, with all epochs that are stored and with the checkpoints, to
a new file. Studies may run meanwhile. The new file appears when it is whole, and
never takes the place of another.

cp is no way to copy a database that a process has open: what was stored last is in
the file DB-wal beside it, and cp reads the two at different moments.`,
		Example: `  igcsearch backup saved.db`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && o.output != "" {
				return errors.New("want one new FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.output = args[0]
			}
			return runBackup(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the new `FILE`, which may also be the argument")
	return cmd
}

func runBackup(ctx context.Context, o backupOptions, stdout io.Writer) error {
	if o.output == "" {
		return usageError{errors.New("FILE is missing: give the new file, like copy.db")}
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Backup(ctx, o.output); err != nil {
		return err
	}
	info, err := os.Stat(o.output)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: a copy of %s, %s\n", o.output, o.db, humanize.IBytes(uint64(info.Size())))
	return err
}
