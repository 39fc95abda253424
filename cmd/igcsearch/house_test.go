package main_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestWhoImportsWhom holds the packages to the table of docs/design.md: imports go
// one way, and trainer, store and plots know nothing of one another.
func TestWhoImportsWhom(t *testing.T) {
	text, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := exec.Command("go", "list", "-tags", "gpu", "-f", `{{.ImportPath}} {{join .Imports " "}}`,
		"igcsearch/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(listed)) {
		words := strings.Fields(line)
		imports[words[0]] = words[1:]
	}
	packages := 0
	rows := regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|.*\\|([^|]*)\\|$")
	for _, row := range rows.FindAllStringSubmatch(string(text), -1) {
		pkg, may := row[1], strings.FieldsFunc(row[2], func(r rune) bool { return strings.ContainsRune(" ,`–", r) })
		if slices.Contains(may, "all") {
			continue
		}
		packages++
		// Every package has a row, so what a package imports through others need not stand in its row.
		if imports["igcsearch/"+pkg] == nil {
			t.Errorf("docs/design.md has a row for %s, which is no package", pkg)
		}
		for _, dep := range imports["igcsearch/"+pkg] {
			name, ours := strings.CutPrefix(dep, "igcsearch/")
			if ours && !slices.Contains(may, name) {
				t.Errorf("%s imports %s; it may import %v", pkg, name, may)
			}
		}
	}
	for name := range imports {
		pkg := strings.TrimPrefix(name, "igcsearch/")
		parts := []string{".ci/", "trainer/dataset/handsigns", "trainer/gpu/"}
		part := slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(pkg, p) })
		if !part && !strings.Contains(string(text), "| `"+pkg+"` |") {
			t.Errorf("docs/design.md has no row for %s", pkg)
		}
	}
	if packages < 15 {
		t.Errorf("docs/design.md has a table of %d packages: is it read as it is written?", packages)
	}
	for _, dep := range imports["igcsearch/space"] {
		if strings.Contains(dep, ".") {
			t.Errorf("space imports %s; it is standard library only", dep)
		}
	}
}
