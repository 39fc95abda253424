package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"igcsearch/studies"
)

// TestObjectName checks that names of objects are DNS labels, short enough for
// the longest host name of a worker, and never the same for two studies.
func TestObjectName(t *testing.T) {
	t.Parallel()
	label := regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`) // RFC 1035, as a Service is named
	long := strings.Repeat("a", 100)
	names := append(studies.Names(), "a", "A", "a_b", "a-b", "a.b", "9", "x-", "x.", "x_", "x..", "0",
		long, long[1:], long[:40], long[:39], long[:39]+"-")
	of := map[string]string{}
	for _, study := range names {
		name := objectName(study)
		if host := name + "-workers-" + strconv.Itoa(MaxPods-1); !label.MatchString(name) || len(host) > 63 {
			t.Errorf("%q: %s", study, name)
		}
		if other, twice := of[name]; twice {
			t.Errorf("%q and %q are both %s", study, other, name)
		}
		of[name] = study
	}
	if got := objectName("fig3a-short"); got != "igcsearch-fig3a-short" {
		t.Errorf("a name that needs no change became %s", got)
	}
}

// TestSettingsTravel checks that a study which the manifest contains is the same
// study in the cluster.
func TestSettingsTravel(t *testing.T) {
	t.Parallel()
	for _, name := range studies.Names() {
		here, err := studies.Load(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := studies.Encode(here)
		if err != nil {
			t.Fatal(err)
		}
		there, err := studies.Parse("study.toml", text, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if here.Fingerprint() != there.Fingerprint() {
			t.Errorf("%s: other settings there:\n%s\n%s", name, here.Settings(), there.Settings())
		}
		a, b := reflect.ValueOf(here), reflect.ValueOf(there)
		for _, f := range reflect.VisibleFields(a.Type()) {
			if f.Anonymous {
				continue
			}
			x, y := a.FieldByIndex(f.Index), b.FieldByIndex(f.Index)
			empty := x.Kind() == reflect.Slice && x.Len()+y.Len() == 0 // one may be nil
			if !empty && !reflect.DeepEqual(x.Interface(), y.Interface()) {
				t.Errorf("%s: %s: %v here, %v there", name, f.Name, x, y)
			}
		}
	}
}

// TestYAMLLiteral checks that a text is a literal block only if YAML gives it
// back unchanged.
func TestYAMLLiteral(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a = 1\n\n[b]\nc = 'ü'\n": "|\n  a = 1\n\n  [b]\n  c = 'ü'",
		"a":                       `"a"`,     // a block ends with a line break
		"a\n\n":                   `"a\n\n"`, // with one only
		" a\n":                    `" a\n"`,  // its indentation would be the block's
		"":                        `""`,
		"a\tb\n":                  `"a\tb\n"`,
		"a\u0085b\n":              `"a\u0085b\n"`, // YAML reads a line break here
		"\ufeffa\n":               `"\ufeffa\n"`,
	} {
		if got := yamlLiteral(2, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestDockerfile checks what the Dockerfile says of this tree. It does not build
// the image.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join("..", "..", "..")
	has := func(pattern string, want string) {
		t.Helper()
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil || string(m[1]) != want {
			t.Errorf("%s: got %q, want %s", pattern, m, want)
		}
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	has(`(?m)^FROM golang:([\d.]+)-bookworm `, string(goVersion[1]))
	has(`--uid (\d+) `, strconv.Itoa(kubernetesUser))
	has(`(?m)^USER (\d+:\d+)$`, strconv.Itoa(kubernetesUser)+":"+strconv.Itoa(kubernetesUser))
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	has(`(?m)^RUN (make gpu) && `, "make gpu")
	rule := regexp.MustCompile(`(?m)^gpu:.*\n(?:\t@echo .*\n)?\t.* -buildvcs=true .* -o (\S+) `).FindSubmatch(makefile)
	if rule == nil {
		t.Fatal("make gpu: no such rule that builds with the commit")
	}
	has(`(?m)^COPY --from=build /src/(\S+) `, string(rule[1]))
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllSubmatch(text, -1) {
		for _, source := range strings.Fields(string(m[1])) {
			if _, err := os.Stat(filepath.Join(root, source)); err != nil {
				t.Error(err)
			}
		}
	}

	// If a tracked file were left out, git would see a change and the binary would
	// name a modified commit. git reads these patterns as Docker does, except "**/".
	tracked, err := exec.Command("git", "-C", root, "ls-files").Output()
	if err != nil {
		t.Skip("no git tree: ", err)
	}
	ignored, err := os.ReadFile(filepath.Join("..", "Dockerfile.dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(tracked))
	if !slices.Contains(files, "go.mod") {
		t.Fatalf("git ls-files: %d files without go.mod", len(files))
	}
	for _, pattern := range strings.Fields(regexp.MustCompile(`(?m)^#.*`).ReplaceAllString(string(ignored), "")) {
		for _, file := range files {
			name, p := file, strings.TrimPrefix(pattern, "/")
			if everywhere, ok := strings.CutPrefix(pattern, "**/"); ok {
				name, p = filepath.Base(file), everywhere
			}
			inside, err := filepath.Match(p, strings.Split(name, "/")[0])
			whole, _ := filepath.Match(p, name)
			if err != nil || inside || whole {
				t.Errorf("%s leaves out %s (%v)", pattern, file, err)
			}
		}
	}
}
