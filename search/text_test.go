package search_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"igcsearch/search"
)

func TestBounded(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("ä", 4000)
	for message, want := range map[string]string{"": "", "short": "short", "a\xffb": "a\uFFFDb", full: full} {
		if got := search.Bounded(message); got != want {
			t.Errorf("%.20q became %.20q, want %.20q", message, got, want)
		}
	}
	got := search.Bounded("what " + full + " why")
	if n := utf8.RuneCountInString(got); n > 4000 || !strings.HasPrefix(got, "what ä") ||
		!strings.HasSuffix(got, "ä why") || !strings.Contains(got, "ä\n[...]\nä") {
		t.Errorf("a long message has %d characters and begins %.20q", n, got)
	}
}

func TestLastLine(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{"": "", " one ": "one", "first\n last \n\n": "last"} {
		if got := search.LastLine(message); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}
