package main_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestWhoImportsWhom holds the packages to the table in docs/design.md: imports go one way, and trainer, store and
// plots do not know one another. Only package main may import everything.
func TestWhoImportsWhom(t *testing.T) {
	// Each package with the packages of ours that it may import.
	allowed := map[string]string{
		"space":                              "",
		"search":                             "space",
		"search/analysis":                    "space",
		"search/strategy":                    "search space",
		"store":                              "search space",
		"store/fleet":                        "search search/strategy space store",
		"store/spool":                        "search space",
		"store/table":                        "search space",
		"trainer":                            "search space trainer/dataset trainer/graph trainer/kernel",
		"trainer/kernel":                     "",
		"trainer/dataset":                    "",
		"trainer/dataset/handsigns":          "",
		"trainer/graph":                      "space trainer/kernel",
		"trainer/gpu":                        "search space trainer trainer/dataset trainer/gpu/driver trainer/graph trainer/kernel",
		"trainer/gpu/driver":                 "",
		"trainer/gpu/emulator":               "",
		"trainer/gpu/emulator/internal/call": "",
		"trainer/bench":                      "space trainer/dataset trainer/gpu trainer/graph trainer/kernel",
		"plots":                              "",
		"studies":                            "search space",
		"cmd/igcsearch/cluster":              "search",
		"cmd/igcsearch/live":                 "cmd/igcsearch/progress cmd/igcsearch/report search space store",
		"cmd/igcsearch/progress":             "cmd/igcsearch/report search space trainer trainer/graph",
		"cmd/igcsearch/report":               "search search/analysis search/strategy space store store/table studies",
		"cmd/igcsearch":                      "",
	}
	const format = `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`
	out, err := exec.Command("go", "list", "-tags", "gpu", "-f", format, "igcsearch/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], "igcsearch/")
		may, known := allowed[pkg]
		if !known {
			t.Errorf("package %s is new: add it here and in docs/design.md", pkg)
		}
		for _, path := range words[1:] {
			name, ours := strings.CutPrefix(path, "igcsearch/")
			if ours && pkg != "cmd/igcsearch" && !slices.Contains(strings.Fields(may), name) {
				t.Errorf("%s imports %s; it may import: %s", pkg, name, may)
			}
			if pkg == "space" && strings.Contains(path, ".") {
				t.Errorf("space imports %s; it may only import the standard library", path)
			}
		}
	}
}
