package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
)

type versionOptions struct{ format string }

func newVersionCommand() *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show which program this is and what it runs on",
		Example: `  igcsearch version
  igcsearch version --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addChoice(cmd, &o.format, "format", "how to print it", "table", "json")
	return cmd
}

// buildInfo is what the go command recorded in the program.
type buildInfo struct {
	version string // "(devel)" if built from a working tree
	commit  string // git commit, "-modified" behind it if the tree was; "" if unknown
}

func build() buildInfo {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return buildInfo{version: "(unknown)"}
	}
	b := buildInfo{version: info.Main.Version}
	if b.version == "" {
		b.version = "(devel)"
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	if b.commit == "" && byGoRun() {
		// go run records no commit, but runs in the tree that it built.
		b.commit, modified = workingTree()
	}
	if b.commit != "" {
		b.commit += modified
	}
	return b
}

// workingTree asks git about the current folder; "" if there is no answer.
func workingTree() (commit, modified string) {
	head, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "", ""
	}
	changes, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(changes) > 0 {
		modified = "-modified"
	}
	return strings.TrimSpace(string(head)), modified
}

func runVersion(_ context.Context, o versionOptions, stdout io.Writer) error {
	isa, err := trainer.ISA()
	if err != nil {
		return err
	}
	b := build()
	if o.format == "json" {
		return json.NewEncoder(stdout).Encode(struct {
			Version string `json:"version"`
			Commit  string `json:"commit"` // "" if unknown
			Go      string `json:"go"`
			ISA     string `json:"isa"`
			CPU     string `json:"cpu"`
			Cores   int    `json:"cores"`
			GPU     bool   `json:"gpu"` // whether GPU support is built in
		}{b.version, b.commit, runtime.Version(), isa, trainer.CPU(), runtime.GOMAXPROCS(0), gpu.Built})
	}
	if b.commit == "" {
		b.commit = "unknown"
	}
	gpus := "not built in"
	if gpu.Built {
		gpus = "built in"
	}
	const form = "igcsearch %s\ncommit    %s\ngo        %s\nisa       %s\ncpu       %s, %s\ngpu       %s\n"
	_, err = fmt.Fprintf(stdout, form,
		b.version, b.commit, runtime.Version(), isa, trainer.CPU(), report.Count(runtime.GOMAXPROCS(0), "core"), gpus)
	return err
}
