package main_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestWhoImportsWhom holds the packages to the house's rules: imports go one
// way, and trainer, store and plots know nothing of one another.
func TestWhoImportsWhom(t *testing.T) {
	allowed := map[string][]string{
		"space":                  {},
		"search":                 {"space"},
		"search/analysis":        {"space"},
		"search/strategy":        {"search", "space"},
		"store":                  {"search", "space"},
		"store/fleet":            {"search", "search/strategy", "space", "store"},
		"store/spool":            {"search", "space"},
		"store/table":            {"search", "space"},
		"trainer/kernel":         {},
		"trainer/dataset":        {},
		"trainer/graph":          {"space", "trainer/kernel"},
		"trainer":                {"search", "space", "trainer/dataset", "trainer/graph", "trainer/kernel"},
		"trainer/gpu":            {"search", "space", "trainer", "trainer/dataset", "trainer/gpu/driver", "trainer/graph", "trainer/kernel"},
		"trainer/bench":          {"search", "space", "trainer", "trainer/dataset", "trainer/gpu", "trainer/gpu/driver", "trainer/graph", "trainer/kernel"},
		"plots":                  {},
		"studies":                {"search", "space"},
		"cmd/igcsearch/live":     {},
		"cmd/igcsearch/cluster":  {"search", "space"},
		"cmd/igcsearch/progress": {"search", "space", "trainer", "trainer/dataset", "trainer/graph", "trainer/kernel"},
		"cmd/igcsearch/report":   {"search", "search/analysis", "search/strategy", "space", "store", "store/table", "studies"},
	}
	for pkg, want := range allowed {
		out, err := exec.Command("go", "list", "-deps", "-tags", "gpu", "igcsearch/"+pkg).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", pkg, err)
		}
		for _, dep := range strings.Fields(string(out)) {
			name, ours := strings.CutPrefix(dep, "igcsearch/")
			if ours && name != pkg && !slices.Contains(want, name) {
				t.Errorf("%s imports %s; it may import %v", pkg, name, want)
			}
		}
	}
	out, err := exec.Command("go", "list", "-f", "{{join .Imports \"\\n\"}}", "igcsearch/space").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if strings.Contains(dep, ".") {
			t.Errorf("space imports %s; it is standard library only", dep)
		}
	}
}
