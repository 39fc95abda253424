package search

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxMessage is the largest number of characters of a message that is stored.
const maxMessage = 4000

// Bounded returns a message as it is stored: valid UTF-8 of at most 4000 characters. It cuts
// the middle out of a longer one, because the start says what failed and the end says why.
func Bounded(message string) string {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if utf8.RuneCountInString(message) <= maxMessage {
		return message
	}
	const gap = "\n[...]\n"
	r := []rune(message)
	half := (maxMessage - len(gap)) / 2
	return string(slices.Concat(r[:half], []rune(gap), r[len(r)-half:]))
}

// LastLine returns the last line of a message. It says why something failed.
func LastLine(message string) string {
	message = strings.TrimSpace(message)
	return strings.TrimSpace(message[strings.LastIndexByte(message, '\n')+1:])
}

// Printable returns a text that shows on a terminal what it contains. Names of hosts, files and
// studies, and the answers of servers, may have characters that a terminal obeys (ESC, C1 controls),
// that reorder what stands around them (bidirectional overrides) or that cannot be seen. Printable
// writes those as JSON does, like \u001b, so that JSON keeps its meaning, and bytes that are not
// UTF-8 like \x9b. It keeps newlines and tabs.
func Printable(text string) string {
	if !strings.ContainsFunc(text, hidden) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		high, low := utf16.EncodeRune(r)
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !hidden(r):
			b.WriteString(text[i : i+n])
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// hidden reports whether Printable writes a character as an escape. Persian and Indian languages
// need the joiners U+200C and U+200D.
func hidden(r rune) bool {
	return !unicode.IsGraphic(r) && !strings.ContainsRune("\n\t\u200c\u200d", r)
}

// PrintableLine is Printable for a message or a cell of a table, which is one line.
func PrintableLine(text string) string {
	if strings.ContainsAny(text, "\n\r") {
		text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	}
	return Printable(text)
}
