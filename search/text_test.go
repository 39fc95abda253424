package search_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

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

func TestPrintable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"L24M2 seed 3: 56.78 % ± 1.30 ✓ 手話 🖐", "L24M2 seed 3: 56.78 % ± 1.30 ✓ 手話 🖐"},
		{"two\nlines\tand a tab", "two\nlines\tand a tab"},
		{"می\u200cخواهم", "می\u200cخواهم"},
		{"\x1b[2J\x1b]0;title\a", `\u001b[2J\u001b]0;title\u0007`},
		{"over\rwritten\b\x7f\x00", `over\u000dwritten\u0008\u007f\u0000`},
		{"\u009b31m \u0085", `\u009b31m \u0085`},
		{"\x9b31m \xff", `\x9b31m \xff`},
		{"moc\u202etxt.exe \u2066 \u200f", `moc\u202etxt.exe \u2066 \u200f`},
		{"\u2028 \ufeff \U000e0041 \u00a0", "\\u2028 \\ufeff \\udb40\\udc41 \u00a0"},
	} {
		if got := search.Printable(c.text); got != c.want {
			t.Errorf("%q is printed as %q, want %q", c.text, got, c.want)
		}
	}
	if got := search.PrintableLine("a\r\nb\x1b\n"); got != `a; b\u001b` {
		t.Errorf("a line is %q", got)
	}
}

// TestPrintableJSON: JSON that is printed means the same.
func TestPrintableJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "text")
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal([]byte(search.Printable(string(text))), &got); err != nil || got != want {
			t.Fatalf("%q became %q: %v", want, got, err)
		}
	})
}
