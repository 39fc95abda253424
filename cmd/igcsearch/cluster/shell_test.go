package cluster

import (
	"os/exec"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	t.Parallel()
	words := []string{"plain", "", "two words", `it's`, `pairs=["40x2"]`, "a$b`c\\d", "*?~#!", "new\nline", "ü"}
	var script []string
	for _, w := range words {
		script = append(script, Quote(w))
	}
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+strings.Join(script, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
		t.Errorf("a shell reads %q, want %q", out, want)
	}
	if Quote("plain") != "plain" {
		t.Error("a plain word needs no quotes")
	}
}
