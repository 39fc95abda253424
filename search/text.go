package search

import (
	"slices"
	"strings"
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
