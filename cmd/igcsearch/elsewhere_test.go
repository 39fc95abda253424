package main

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestElsewhere runs docs/elsewhere.md as it stands: the commands in their order, and the code under the names that the
// text gives it. PyTorch and onnxruntime must count the test pictures as the database does. It needs the files of
// CIFAR-100, whose folder IGC_CIFAR names, PyTorch, and for the last part onnxruntime-node in NODE_PATH.
func TestElsewhere(t *testing.T) {
	text, err := os.ReadFile("../../docs/elsewhere.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := codeBlocks(string(text))
	kinds := ""
	for _, b := range blocks {
		kinds += " " + b.language + ";"
	}
	if want := " ; ; python; ; python; ; js; ;"; kinds != want {
		t.Fatalf("the blocks of the page are%s want%s", kinds, want)
	}
	pictures := os.Getenv("IGC_CIFAR")
	if pictures == "" {
		t.Skip("IGC_CIFAR does not name a folder with the files of CIFAR-100")
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import torch, numpy").CombinedOutput(); err != nil {
		t.Skipf("/usr/bin/python3 has no torch and numpy: %v %s", err, out)
	}
	if pictures, err = filepath.Abs(pictures); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(pictures, filepath.Join(dir, "pictures")); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("igcsearch") // see TestMain
	if err != nil {
		t.Fatal(err)
	}
	run := func(script string) string {
		t.Helper()
		c := exec.Command("sh", "-e", "-c", script)
		c.Dir = dir
		c.Env = append(os.Environ(), "PATH=/usr/bin:"+filepath.Dir(program)+":"+os.Getenv("PATH"), "IGCSEARCH_DATA=")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	want := ""
	for _, b := range blocks {
		name, code := b.file, b.code
		switch {
		case name != "":
			if err := os.WriteFile(filepath.Join(dir, name), []byte(code), 0o666); err != nil {
				t.Fatal(err)
			}
		case b.language == "python": // the reader of npz files
			run("igcsearch weights mine --pair 12x2 --seed 0 --data pictures -o mine.npz")
			script := "import json\nimport numpy as np\nimport torch\nfrom net import Net\n" + code +
				"Net().load_state_dict(tensors)\nassert about['network'] == 'IGC-L12M2' and json.loads(about['mean'])\n"
			if err := os.WriteFile(filepath.Join(dir, "npz.py"), []byte(script), 0o666); err != nil {
				t.Fatal(err)
			}
			run("python3 npz.py")
		case strings.HasPrefix(code, "node "):
			if out, err := exec.Command("node", "-e", "require('onnxruntime-node')").CombinedOutput(); err != nil {
				first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
				t.Skipf("node has no onnxruntime-node (NODE_PATH): %v %s", err, first)
			}
			fallthrough
		case strings.HasPrefix(code, "python3 "):
			if got := strings.TrimSpace(run(code)); got != want {
				t.Errorf("%s prints %q, and the database says %s", code, got, want)
			} else {
				t.Logf("%s%s", code, got)
			}
		default:
			run(code)
			if strings.Contains(code, "mine.csv") {
				want = counted(t, filepath.Join(dir, "mine.csv"))
			}
		}
	}
}

// codeBlock is a block of code on a page.
type codeBlock struct {
	language string
	file     string // "count.py", if the paragraph before it begins with this name
	code     string
}

func codeBlocks(page string) (blocks []codeBlock) {
	named := regexp.MustCompile("^`([a-z]+\\.[a-z]+)` ")
	file, inside := "", false
	for line := range strings.Lines(page) {
		fence, begins := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case begins && !inside:
			blocks = append(blocks, codeBlock{language: fence, file: file})
			file, inside = "", true
		case begins:
			inside = false
		case inside:
			blocks[len(blocks)-1].code += line
		default:
			if m := named.FindStringSubmatch(line); m != nil {
				file = m[1]
			}
		}
	}
	return blocks
}

// counted is "CORRECT of TOTAL", the test pictures of the only trial in a file of export.
func counted(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := func(column string) string { return rows[1][slices.Index(rows[0], column)] }
	return at("test_correct") + " of " + at("test_total")
}
