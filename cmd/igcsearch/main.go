// Command igcsearch searches the pair (L, M) of interleaved group convolutions
// that is best under a parameter budget: it lists the pairs of a budget,
// trains a network of each from several seeds, and draws accuracy against M.
// A run can be stopped at any moment and goes on where it was.
//
// Data go to standard output, progress and warnings to standard error. Exit
// codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"igcsearch/store"
	"igcsearch/studies"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes of the program.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports SIGINT
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "igcsearch: interrupted")
		return exitInterrupted
	case errors.Is(err, errHelp):
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "igcsearch: %s (see %s --help)\n", message(err), cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "igcsearch: %s\n", message(err))
		return exitFailure
	}
}

// message returns the text of err and the advice for it. It is one line, except
// for a conflict of settings, which is a list.
func message(err error) string {
	text := err.Error()
	if hint := advice(err); hint != "" {
		text += ": " + hint
	}
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return text
	}
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), "; ")
}

// usageError is an error in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errHelp ends a command line without a command, after its help was printed.
var errHelp = errors.New("a command is missing")

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "igcsearch",
		Short: "Search the best interleaved group convolution under a parameter budget",
		Long: `igcsearch searches the pair (L, M) of interleaved group convolutions that is
best under a parameter budget. It lists the pairs of a budget, trains a network
of each from several seeds, and draws accuracy against M.

A run can be stopped at any moment, even killed; the same command goes on where
it was and ends with the same results.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
		Example: `  # the whole job on built-in pictures: nine pairs, two seeds, a figure
  igcsearch run quickstart

  # what is there to try under a budget?
  igcsearch space --budget 4672`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		newSpaceCommand(), newModelCommand(), newPaperCommand(), newRunCommand(), newStudiesCommand(), newStatusCommand(), newServeCommand(), newWorkerCommand(), newCollectCommand(), newSubmitCommand(), newPlotCommand(),
		newAnalyzeCommand(), newReplayCommand(), newExportCommand(), newVerifyCommand(), newWeightsCommand(), newDataCommand(), newBenchCommand(), newTraceCommand(), newDevicesCommand(), newVersionCommand(),
		newRetryCommand(), newDoctorCommand(), newMergeCommand(), newImportCommand(),
	)
	helpOnly(root)
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
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .Annotations.holder)}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	for _, cmd := range root.Commands() {
		checkArgs(cmd)
		for _, sub := range cmd.Commands() {
			checkArgs(sub)
		}
	}
	return root
}

// helpOnly is for commands that only hold others: alone they print their help,
// as an error.
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

// knownCommand is the check of the arguments of a command that holds others:
// what is left over is the name of no command.
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

// checkArgs makes errors in a command's arguments usage errors.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if usage := (usageError{}); err == nil || errors.As(err, &usage) {
				return err
			}
			if strings.HasPrefix(err.Error(), "unknown command") {
				err = fmt.Errorf("unexpected argument %q", args[0]) // cobra.NoArgs takes it for a command
			}
			return usageError{err}
		}
	}
}

// oneStudy checks for exactly one argument, a study.
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
	names = slices.DeleteFunc(slices.Compact(names), func(n string) bool { return slices.Contains(args, n) })
	if len(args) > 0 && cmd.Name() != "plot" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveDefault
}
