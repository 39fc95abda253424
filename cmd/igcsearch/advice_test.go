package main

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

func TestAdvice(t *testing.T) {
	missing := func(get, fetches string) error {
		return fmt.Errorf("set: %w", &dataset.MissingError{Err: fs.ErrNotExist, Get: get, Fetches: fetches})
	}
	anew := " to go on, or start anew under another name or in another database"
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("no picture"), ""},
		{missing("cifar10", ""),
			"run 'igcsearch data get cifar10 --data DIR', or name the folder with --data DIR or IGCSEARCH_DATA"},
		{missing("svhn", "the files that are missing"),
			"'igcsearch data get svhn --data DIR' fetches the files that are missing"},
		{missing("", ""), "name the folder with --data DIR or IGCSEARCH_DATA"},
		{trainer.ArithmeticError{Made: "avx512", Ours: "avx2"}, "set IGC_ISA=avx512" + anew},
		{trainer.ArithmeticError{Made: "avx512", Ours: "cuda sm_90"},
			"give --device cpu and set IGC_ISA=avx512" + anew},
		{trainer.ArithmeticError{Made: "cuda sm_90", Ours: "avx512"}, "give a GPU with sm_90 by --device" + anew},
		{trainer.ArithmeticError{Made: "cuda sm_90", Ours: "cuda sm_80"}, "give a GPU with sm_90 by --device" + anew},
	} {
		if got := advice(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
		text := c.err.Error()
		if c.want != "" {
			text += ": " + c.want
		}
		// Twice is as once: the trainer's errors have it before the command's.
		if got := advised(advised(c.err)); got.Error() != text || !errors.Is(got, c.err) {
			t.Errorf("%q, want %q", got, text)
		}
	}
}
