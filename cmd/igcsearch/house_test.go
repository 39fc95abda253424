package main_test

import (
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOneEdge: only main knows the streams of the process, so nothing reaches a terminal but through report.Text.
func TestOneEdge(t *testing.T) {
	direct := regexp.MustCompile(
		`\bos\.Std(out|err)\b|\bfmt\.Print(f|ln)?\(|\bprint(ln)?\(|\bsyscall\.Std|\blog\.SetOutput\(`)
	listed, err := exec.Command("go", "list", "-tags", "gpu", "-f",
		`{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .CgoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}`,
		"igcsearch/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(listed))
	if len(files) < 100 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		// All but the last are programs of their own, which only those run who build igcsearch.
		others := []string{"/.ci/", "/emulator/", "/kernels/sass/", "/handsigns/", "/cmd/igcsearch/main.go"}
		if slices.ContainsFunc(others, func(part string) bool { return strings.Contains(file, part) }) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if direct.MatchString(code) {
				t.Errorf("%s:%d: it prints past the writers of its command: %s", file, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// TestCommandsLeaveNothing: what the commands of the README write into a checkout is ignored by git.
func TestCommandsLeaveNothing(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := os.ReadFile("../../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "## More commands")
	block, _, _ = strings.Cut(block, "\n## ")
	written := regexp.MustCompile(`(?m)^igcsearch [^#\n]*(?:-o|--csv) (\S+)`).FindAllStringSubmatch(block, -1)
	for _, match := range written {
		ignored := slices.ContainsFunc(strings.Fields(string(ignore)), func(pattern string) bool {
			ok, _ := path.Match(strings.TrimPrefix(pattern, "/"), match[1])
			return ok
		})
		if !ignored {
			t.Errorf(".gitignore lacks %s, which %q writes", match[1], match[0])
		}
	}
	if len(written) < 4 {
		t.Errorf("only %q are written: is the README read as it is written?", written)
	}
}

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
