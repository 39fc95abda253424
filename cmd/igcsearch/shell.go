package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"igcsearch/cmd/igcsearch/cluster"
)

// commandLine returns the command that started this process, for a shell.
func commandLine() string {
	words := []string{program()}
	for _, a := range os.Args[1:] {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// program returns what to type to start this program again.
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok && byGoRun() && strings.HasPrefix(info.Path, info.Main.Path+"/") {
		return "go run ." + strings.TrimPrefix(info.Path, info.Main.Path) // go run removes the file that it starts
	}
	return quote(os.Args[0])
}

// byGoRun reports whether go run started this process.
func byGoRun() bool {
	path, err := os.Executable()
	built := string(filepath.Separator) + "go-build"
	return err == nil && strings.Contains(path, built) && !strings.HasSuffix(path, ".test")
}

// quote makes s one word of a shell.
func quote(s string) string { return cluster.Quote(s) }
