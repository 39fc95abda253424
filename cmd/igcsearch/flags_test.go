package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/pflag"
)

// TestFlagColumns: pflag aligns the columns of a help by bytes, so that a character of several bytes would move them.
// It writes "(default )" for a duration whose default is hidden.
func TestFlagColumns(t *testing.T) {
	t.Parallel()
	list := newRootCommand().Commands()
	flags := 0
	for len(list) > 0 {
		cmd := list[0]
		list = append(list[1:], cmd.Commands()...)
		if strings.Contains(cmd.Flags().FlagUsages(), "(default )") {
			t.Errorf("%s: a flag has an empty default", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			flags++
			kind, _ := pflag.UnquoteUsage(f)
			if i := strings.IndexFunc(f.Name+kind, func(r rune) bool { return r > unicode.MaxASCII }); i >= 0 {
				t.Errorf("%s: --%s %s is not ASCII", cmd.CommandPath(), f.Name, kind)
			}
		})
	}
	if flags < 50 {
		t.Errorf("only %d flags were looked at", flags)
	}
}

func TestFlagValues(t *testing.T) {
	t.Parallel()
	var f fraction
	var s size
	var p pairs
	var n positive
	for _, c := range []struct {
		flag interface {
			Set(string) error
			String() string
		}
		in, out string // out "": refused
	}{
		{&f, "2.4%", "2.4%"}, {&f, "0.024", "2.4%"}, {&f, "0", "0%"}, {&f, " 7 % ", "7%"},
		{&f, "1", ""}, {&f, "100%", ""}, {&f, "-1%", ""}, {&f, "nan", ""}, {&f, "%", ""}, {&f, "", ""},
		{&s, "3.25x2.2in", "3.25x2.2in"}, {&s, "3x2", "3x2in"}, {&s, "25.4x5.08cm", "10x2in"},
		{&s, "0x2", ""}, {&s, "3", ""}, {&s, "3x2mm", ""}, {&s, "nanx2", ""}, {&s, "41x2", ""},
		{&p, "40x2,64x1", "40x2,64x1"}, {&p, "L40M2, 64x1", "40x2,64x1"}, {&p, "", ""},
		{&p, "40x2,", ""}, {&p, "x", ""}, {&p, "40x0", ""},
		{&n, "1", "1"}, {&n, "0", ""}, {&n, "-1", ""}, {&n, "x", ""}, {&n, "1000000001", ""},
	} {
		err := c.flag.Set(c.in)
		if c.out == "" {
			if err == nil {
				t.Errorf("%T: %q is taken as %v", c.flag, c.in, c.flag)
			}
			continue
		}
		if got := fmt.Sprint(c.flag); err != nil || got != c.out {
			t.Errorf("%T: %q gives %q, %v; want %q", c.flag, c.in, got, err, c.out)
		}
	}
}
