package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/store"
	"igcsearch/studies"
)

func init() { cobra.EnableCommandSorting = false } // the help lists commands in our order

// commandGroups are the commands, as the help groups them.
var commandGroups = []struct {
	title    string
	commands []func() *cobra.Command
}{
	{"Run:", []func() *cobra.Command{
		newRunCommand, newStudiesCommand, newSpaceCommand, newModelCommand, newRetryCommand,
		newDevicesCommand, newBenchCommand,
	}},
	{"Look:", []func() *cobra.Command{
		newStatusCommand, newServeCommand, newAnalyzeCommand, newExportCommand, newReplayCommand,
		newVerifyCommand, newTraceCommand, newWeightsCommand, newPicturesCommand,
	}},
	{"Figures and tables:", []func() *cobra.Command{newPlotCommand, newPaperCommand}},
	{"Several machines:", []func() *cobra.Command{
		newSubmitCommand, newWorkerCommand, newCollectCommand, newMergeCommand,
	}},
	{"Data:", []func() *cobra.Command{newDataCommand, newImportCommand, newRenameCommand, newDeleteCommand,
		newBackupCommand, newDoctorCommand}},
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "igcsearch",
		Short: "Search the best interleaved group convolution under a parameter budget",
		Long: `igcsearch searches the pair (L, M) of interleaved group convolutions that is
best under a parameter budget. It lists the pairs of a budget, trains a network
of each from several seeds, and draws accuracy against M.

A run can be stopped at any moment, even killed. The same command goes on where
it was and ends with the same results.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 doctor found something that is not
repaired, 130 interrupted.`,
		Example: `  # the whole job on built-in pictures: six pairs, ten seeds, a figure
  igcsearch run quickstart

  # which pairs can be tried under a budget?
  igcsearch space --budget 4672`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	for _, g := range commandGroups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, newCommand := range g.commands {
			cmd := newCommand()
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(newVersionCommand())
	helpOnly(root)
	version := root.Flags().Bool("version", false, "show which program this is, as igcsearch version does")
	showHelp := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *version {
			return runVersion(cmd.Context(), versionOptions{}, cmd.OutOrStdout())
		}
		return showHelp(cmd, args)
	}
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			return knownCommand(cmd, rest)
		}
	}
	// A command that only holds others has no usage of its own.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"{{if .Runnable}}", "{{if and .Runnable (not .Annotations.holder)}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	for _, cmd := range root.Commands() {
		checkArgs(cmd)
		for _, sub := range cmd.Commands() {
			checkArgs(sub)
		}
	}
	return root
}

// helpOnly prepares a command that only holds others. Without one of them it
// prints its help, as an error.
func helpOnly(cmd *cobra.Command) {
	cmd.Args = knownCommand
	cmd.Annotations = map[string]string{"holder": "yes"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SetOut(cmd.ErrOrStderr())
		if err := cmd.Help(); err != nil {
			return err
		}
		return errHelp
	}
}

// knownCommand checks the arguments of a command that only holds others. An
// argument that is left over names no command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(": did you mean %q?", near[0])
	}
	return usageError{fmt.Errorf("unknown command %q%s", args[0], hint)}
}

// checkArgs makes errors in the arguments of a command usage errors.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if usage := (usageError{}); err == nil || errors.As(err, &usage) {
				return err
			}
			if strings.HasPrefix(err.Error(), "unknown command") {
				err = fmt.Errorf("unexpected argument %q", args[0]) // cobra.NoArgs calls it a command
			}
			return usageError{err}
		}
	}
}

// oneStudy checks that there is one argument, a study.
func oneStudy(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one STUDY, got %d arguments", len(args))
	}
	return nil
}

// completeStudies completes shipped studies, those of the database, and files.
func completeStudies(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names := studies.Names()
	if flag := cmd.Flag("db"); flag != nil {
		if db, err := store.OpenReadOnly(cmd.Context(), flag.Value.String()); err == nil {
			defer db.Close()
			if infos, err := db.Studies(cmd.Context()); err == nil {
				for _, info := range infos {
					names = append(names, info.Name)
				}
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) })
	if len(args) > 0 && cmd.Name() != "plot" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveDefault
}
