package main

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/studies"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

func TestAdvice(t *testing.T) {
	missing := func(get, fetches string) error {
		return fmt.Errorf("set: %w", &dataset.MissingError{Err: fs.ErrNotExist, Get: get, Fetches: fetches})
	}
	database := func(fault store.Fault) error {
		return &store.Error{Act: "open database", Database: "a.db", Folder: "/here", Fault: fault,
			Err: errors.New("no")}
	}
	anew := " to go on, or start anew under another name or in another database"
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("no picture"), ""},
		{fmt.Errorf("replay: %w", &strategy.UnfinishedError{}),
			"export the study (csv, --epochs --times), import it with --set strategy=grid --set name=NEW, and run" +
				" that to its end"},
		{&studies.UnknownError{Name: "x"},
			"'igcsearch studies' lists the shipped ones, and 'igcsearch status' those of a database"},
		{missing("cifar10", ""),
			"run 'igcsearch data get cifar10 --data DIR', or name the folder with --data DIR or IGCSEARCH_DATA"},
		{missing("svhn", "the files that are missing"),
			"'igcsearch data get svhn --data DIR' fetches the files that are missing"},
		{&dataset.MissingError{Err: fs.ErrNotExist, Get: "cifar10", Packed: true},
			"'igcsearch data get cifar10 --data DIR' unpacks it"},
		{&dataset.UnreachableError{Err: errors.New("no route"), Folder: "pictures", Files: []dataset.Published{
			{URL: "http://a/b.mat", MD5: "0a", Bytes: 10}, {URL: "http://a/c.mat", MD5: "1b", Bytes: 20}}},
			"without a network, download http://a/b.mat (10 bytes, MD5 0a) and http://a/c.mat (20 bytes, MD5 1b) " +
				"elsewhere, put that into pictures, and give this command again"},
		{missing("", ""), "name the folder with --data DIR or IGCSEARCH_DATA"},
		{trainer.ArithmeticError{Made: "avx512", Ours: "avx2"}, "set IGC_ISA=avx512" + anew},
		{trainer.ArithmeticError{Made: "avx512", Ours: "cuda sm_90 (ptxas 11.8)"},
			"give --device cpu and set IGC_ISA=avx512" + anew},
		{trainer.ArithmeticError{Made: "cuda sm_90 (ptxas 11.8)", Ours: "avx512"},
			"give a GPU with sm_90 (ptxas 11.8) by --device" + anew},
		{trainer.ArithmeticError{Made: "cuda sm_75 (driver 12.4)", Ours: "cuda sm_80 (ptxas 11.8)"},
			"give a GPU with sm_75 (driver 12.4) by --device" + anew},
		{trainer.PrecisionError{Precision: "tf32", Devices: "avx512"},
			"choose such a GPU by --device, or train with --set precision=f32, whose results are others"},
		{trainer.PrecisionError{Precision: "bf16", Devices: "cuda sm_90"},
			"give --device cpu, or train with --set precision=f32, whose results are others"},
		{trainer.PrecisionError{Precision: "bf16-amx", Devices: "cuda sm_90"},
			"give --device cpu, or train with --set precision=f32, whose results are others"},
		{database(store.Other), ""},
		{database(store.NoFolder), "create it, or give another --db"},
		{database(store.Missing), "give its path with --db, or create it with: igcsearch run STUDY"},
		{database(store.Empty), "store a study with: igcsearch run STUDY"},
		{database(store.NoStudies), "store one with: igcsearch run STUDY"},
		{database(store.NotRegular), "give another --db"},
		{database(store.Foreign), "give another --db"},
		{database(store.NotADatabase), "give the --db of an igcsearch database, or a new name"},
		{database(store.Older),
			"write each study to a file with that igcsearch (export STUDY --format json --epochs --times) and " +
				"import the file into a new one (import FILE --db NEW); checkpoints and weights stay in the old one"},
		{database(store.Newer), "update igcsearch, or give another --db"},
		{database(store.Altered), "undo that change with: sqlite3 FILE, or give another --db"},
		{database(store.Contradictory),
			"igcsearch doctor says what is wrong with the database, and repairs most of it with --repair"},
		{database(store.NotWritable),
			"check the permissions of the file and of folder /here, a run writes both; or give another --db"},
		{database(store.FolderClosed), "a run needs to write in that folder; give another --db"},
		{database(store.InUse), "wait for it, stop it, or give another --db"},
		{database(store.InUseNetwork), "wait for it, or give a --db on a local disk, where several processes can run"},
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

func TestNamingSet(t *testing.T) {
	_, err := studies.Load("quickstart", []string{"epochs=0", "seeds=0"})
	got := namingSet(err)
	want := "--set: epochs 0: want 1 or more\n--set: seeds 0: want 1 to 10000"
	if !errors.As(got, new(usageError)) || got.Error() != want {
		t.Errorf("%v, want %s", got, want)
	}
	if err := errors.New("no override"); namingSet(err) != err || namingSet(nil) != nil {
		t.Errorf("%v", namingSet(err))
	}
}
