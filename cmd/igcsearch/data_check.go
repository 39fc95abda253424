package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/trainer/dataset"
)

func newDataCheckCommand() *cobra.Command {
	var o dataOptions
	sets := append(slices.Clone(downloads), "folder")
	cmd := &cobra.Command{
		Use:   "check " + strings.Join(sets, "|"),
		Short: "Read all pictures, and list what is left out",
		Long: `check reads all pictures of a data set and counts them. Of a folder it lists every
file that is left out, with the reason. Of the others it compares checksums with those of
the official files. Pickles of CIFAR may have been written again: if their own checksum is
another one, that of the pictures and labels in them counts.`,
		Example:   `  igcsearch data check folder --data photographs`,
		ValidArgs: sets,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(sets, args[0]) {
				return fmt.Errorf("data check: want one of %s, got %q", strings.Join(sets, ", "), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return runDataCheck(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addData(cmd, &o.data)
	return cmd
}

func runDataCheck(ctx context.Context, o dataOptions, stdout io.Writer) error {
	if o.name == "folder" {
		return checkFolder(ctx, o.data, stdout)
	}
	set, err := dataset.Open(ctx, dataset.Options{Name: o.name, Dir: o.data})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %d classes, %d training and %d test pictures; %s\n", o.name, len(set.Classes),
		set.Train.Len(), set.Test.Len(), compared(set.Unofficial))
	return err
}

// compared says what the checksums of a set tell. The names of the classes have none.
func compared(unofficial []string) string {
	if len(unofficial) > 0 {
		return "the checksums of these files are not the official ones: " + strings.Join(unofficial, ", ")
	}
	return "by their checksums all pictures and labels are those of the official files"
}

// checkFolder lists what is left out also where the folder cannot be used.
func checkFolder(ctx context.Context, dir string, stdout io.Writer) error {
	found, unusable := dataset.Inspect(ctx, dir)
	for _, f := range found.LeftOut {
		if _, err := fmt.Fprintf(stdout, "%s: %s\n", f.Name, f.Reason); err != nil {
			return err
		}
	}
	if unusable != nil {
		return unusable
	}
	_, err := fmt.Fprintf(stdout, "folder: %d classes, %d training and %d test pictures; %s left out\n", found.Classes,
		found.Train, found.Test, report.Count(len(found.LeftOut), "file"))
	return err
}
