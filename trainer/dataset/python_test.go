package dataset_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"igcsearch/trainer/dataset"
)

// python2 writes pickles as Python 2 wrote those that are published: protocol 2, with texts of bytes.
type python2 struct {
	bytes.Buffer
	memo byte
}

func (p *python2) text(s string) {
	if len(s) < 256 {
		p.WriteString("U" + string([]byte{byte(len(s))}) + s)
	} else {
		p.Write(binary.LittleEndian.AppendUint32([]byte("T"), uint32(len(s))))
		p.WriteString(s)
	}
}

func (p *python2) put() { p.Write([]byte{'q', p.memo}); p.memo++ }

func (p *python2) number(n int) {
	switch {
	case n < 256:
		p.Write([]byte{'K', byte(n)})
	case n < 65536:
		p.Write([]byte{'M', byte(n), byte(n >> 8)})
	}
}

// array writes an array of n pictures.
func (p *python2) array(pixels []byte) {
	p.WriteString("cnumpy.core.multiarray\n_reconstruct\n")
	p.put()
	p.WriteString("cnumpy\nndarray\n")
	p.put()
	p.WriteString("K\x00\x85U\x01b\x87R")
	p.put()
	p.WriteString("(K\x01")
	p.number(len(pixels) / 3072)
	p.number(3072)
	p.WriteString("\x86cnumpy\ndtype\n")
	p.put()
	p.WriteString("U\x02u1K\x00K\x01\x87R")
	p.put()
	p.WriteString("(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
	p.text(string(pixels))
	p.WriteString("tb")
}

// dict writes a dictionary whose values are lists of numbers or texts, texts, or arrays.
func (p *python2) dict(keys []string, values map[string]any) []byte {
	p.WriteString("\x80\x02}")
	p.put()
	p.WriteString("(")
	for _, key := range keys {
		p.text(key)
		p.put()
		switch v := values[key].(type) {
		case string:
			p.text(v)
		case []byte:
			p.array(v)
		case []int:
			p.WriteString("](")
			for _, n := range v {
				p.number(n)
			}
			p.WriteString("e")
		case []string:
			p.WriteString("](")
			for _, s := range v {
				p.text(s)
				p.put()
			}
			p.WriteString("e")
		}
	}
	p.WriteString("u.")
	return p.Bytes()
}

// pythonFiles returns the Python version of the files of a small set.
func pythonFiles(f dataset.Format, binary map[string][]byte) map[string][]byte {
	all := map[string][]byte{}
	to, meta := f.Python()
	for i, name := range append(slices.Clone(f.TrainFiles()), f.TestFile()) {
		content := map[string]any{"batch_label": "training batch 1 of 5"}
		var pixels []byte
		var labels [2][]int
		var names []string
		for record := range slices.Chunk(binary[name], f.RecordBytes()) {
			n := len(f.LabelCounts())
			for j, label := range record[:n] {
				labels[j] = append(labels[j], int(label))
			}
			pixels = append(pixels, record[n:]...)
			names = append(names, fmt.Sprintf("a_%06d.png", len(names)))
		}
		content["data"], content["filenames"] = pixels, names
		keys := []string{"batch_label", "labels", "data", "filenames"}
		if content["labels"] = labels[0]; len(f.LabelCounts()) == 2 {
			content["coarse_labels"], content["fine_labels"] = labels[0], labels[1]
			keys = []string{"filenames", "batch_label", "fine_labels", "coarse_labels", "data"}
		}
		all[to[i]] = new(python2).dict(keys, content)
	}
	lines := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("class %d", i))
		}
		return list
	}
	if meta == "batches.meta" {
		all[meta] = new(python2).dict([]string{"num_cases_per_batch", "label_names"}, map[string]any{
			"num_cases_per_batch": []int{7}, "label_names": lines(10)})
	} else {
		all[meta] = new(python2).dict([]string{"fine_label_names", "coarse_label_names"}, map[string]any{
			"fine_label_names": lines(100), "coarse_label_names": lines(20)})
	}
	return all
}

// TestPythonVersion: the Python version has the same pictures as the binary one, in the same order.
func TestPythonVersion(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, name := range []string{"cifar10", "cifar100", "cifar100-coarse"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := dataset.Small(name, 20, 30)
			all, bin, flat, nested := files(f, 20, 30), t.TempDir(), t.TempDir(), t.TempDir()
			write(t, bin, all)
			write(t, flat, pythonFiles(f, all))
			write(t, filepath.Join(nested, f.PythonFolder()), pythonFiles(f, all))
			want, err := f.Open(ctx, dataset.Options{Dir: bin, Validation: 10})
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{flat, nested} {
				got, err := f.Open(ctx, dataset.Options{Dir: dir, Validation: 10})
				if err != nil {
					t.Fatal(err)
				}
				if got.Sum != want.Sum || got.Mean != want.Mean || !slices.Equal(got.Classes, want.Classes) ||
					len(got.Unofficial) != 0 {
					t.Errorf("sum %s, mean %v, classes %q, unofficial %q: want those of the binary version", got.Sum,
						got.Mean, got.Classes, got.Unofficial)
				}
				train, _ := f.Python()
				for i := range got.Train.Labels {
					o, w := got.Origin(&got.Train, i), want.Origin(&want.Train, i)
					if o.Number != w.Number || o.Index != w.Index || o.File != train[slices.Index(f.TrainFiles(), w.File)] {
						t.Fatalf("picture %d is %+v, want as %+v", i, o, w)
					}
				}
			}

			// Files that nobody published are told apart by the pictures in them.
			f.Publish(all)
			if got, err := f.Open(ctx, dataset.Options{Dir: flat}); err != nil || len(got.Unofficial) != 0 {
				t.Errorf("the published pictures: unofficial are %q, %v", got.Unofficial, err)
			}
			all[f.TestFile()][5]++
			write(t, flat, pythonFiles(f, all))
			names, _ := f.Python()
			if got, err := f.Open(ctx, dataset.Options{Dir: flat}); err != nil ||
				!slices.Equal(got.Unofficial, names[len(names)-1:]) {
				t.Errorf("another test picture: unofficial are %q, %v", got.Unofficial, err)
			}
			// The binary version is taken where both are.
			write(t, filepath.Join(nested, f.Folder()), all)
			if got, err := f.Open(ctx, dataset.Options{Dir: nested}); err != nil || got.Origin(&got.Test, 0).File != f.TestFile() {
				t.Errorf("both versions: %v", err)
			}
		})
	}
}

// TestPickleProtocols reads what Python 3 writes, as testdata/pickles.py recorded it.
func TestPickleProtocols(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar100", 2, 1)
	for protocol := 2; protocol <= 5; protocol++ {
		dir := fmt.Sprintf("testdata/python/%d", protocol)
		check := func(dir string) {
			t.Helper()
			s, err := f.Open(context.Background(), dataset.Options{Dir: dir})
			if err != nil {
				t.Errorf("protocol %d: %v", protocol, err)
				return
			}
			if !slices.Equal(s.Train.Labels, []uint16{19, 99}) || !slices.Equal(s.Test.Labels, []uint16{49}) ||
				s.Classes[7] != "fine 7" {
				t.Errorf("protocol %d: labels %d and %d, class 7 is %q", protocol, s.Train.Labels, s.Test.Labels, s.Classes[7])
			}
			for i, pixels := range [][]byte{s.Train.Pixels[:3072], s.Train.Pixels[3072:], s.Test.Pixels} {
				for k, x := range pixels {
					if want := byte(7*i + k/64); x != want {
						t.Fatalf("protocol %d: pixel %d of picture %d is %d, want %d", protocol, k, i, x, want)
					}
				}
			}
		}
		check(dir)
		if protocol != 2 && protocol != 3 {
			continue
		}
		newer := t.TempDir() // as numpy 2 names its modules
		for _, name := range []string{"train", "test", "meta"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.ReplaceAll(b, []byte("cnumpy.core."), []byte("cnumpy._core."))
			write(t, newer, map[string][]byte{name: b})
		}
		check(newer)
	}
}

// TestPickleErrors: what is damaged, hostile or another file is an error that says where.
func TestPickleErrors(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar10", 2, 2)
	good := pythonFiles(f, files(f, 2, 2))
	one := good["data_batch_1"]
	labels := bytes.Index(one, []byte("labels"))
	// Each tuple holds the one before twice: in full, the last one would have 2⁶⁰ values.
	tuples := "N" + strings.Repeat("q\xfeh\xfe\x86", 60)
	again := "X\xe8\x03\x00\x00" + strings.Repeat("a", 1000) + "q\x01" +
		strings.Repeat("c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R", 10)
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"a command", []byte("\x80\x02cos\nsystem\nU\x08rm -rf /\x85R."),
			"byte 2: it names os.system, which is not carried out: want plain values and arrays of numpy"},
		{"a command by names on the stack", []byte("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."),
			"byte 17: it names posix.system, which is not carried out"},
		{"builtins", []byte("\x80\x02c__builtin__\neval\nU\x011\x85R."), "it names __builtin__.eval, which is not carried out"},
		{"a name that hides", []byte("\x80\x02cnumpy\nfrom\x1b[2J\n."), `it names "numpy.from\x1b[2J", which`},
		{"an array of objects", bytes.Replace(one, []byte("U\x02u1"), []byte("U\x02O8"), 1), `array of the type "O8", want bytes (u1)`},
		{"another call", []byte("\x80\x02cnumpy.core.multiarray\n_reconstruct\nK\x00\x85R."),
			"it calls numpy.core.multiarray._reconstruct with other arguments than numpy gives it"},
		{"a call of tuples in tuples", []byte("\x80\x02" + tuples + ")R."), "it calls something that is no function"},
		{"a label of tuples in tuples", bytes.Replace(one, []byte("K\x01e"), []byte(tuples+"e"), 1),
			`"labels" has no number at 1, want a label from 0 to 9`},
		{"bytes that are made again and again", []byte("\x80\x02" + again + "."), "it makes more bytes than it has"},
		{"a text of four gigabytes", []byte("\x80\x02T\xff\xff\xff\xffabc"),
			"byte 2: 4294967295 bytes are announced, but the file ends after 3"},
		{"a text of more bytes than there are numbers", []byte("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc"),
			"18446744073709551615 bytes are announced"},
		{"the end in the midst", one[:len(one)/2], "bytes are announced, but the file ends after"},
		{"no end", one[:len(one)-1], fmt.Sprintf("byte %d: 1 bytes are announced, but the file ends after 0", len(one)-1)},
		{"more after its end", append(slices.Clone(one), 'N'), "the pickle ends with 1 values and 1 bytes behind it"},
		{"nothing", nil, "byte 0: 1 bytes are announced, but the file ends after 0"},
		{"text", []byte("hello"), "byte 0: it wants the value 101, which it has not stored"},
		{"gzip", []byte("\x1f\x8b\x08\x00"), "it has the instruction 0x1f, which the published files do not have"},
		{"protocol 0", []byte("(dp0\nS'data'\n"), "it has the instruction 0x64"},
		{"a later protocol", []byte("\x80\x06N."), "version 6 of the pickle protocol, want 2 to 5"},
		{"a million lists", bytes.Repeat([]byte("]"), 1e6), "it has more objects than the published files"},
		{"a million marks", bytes.Repeat([]byte("("), 1e6), "it has more objects than the published files"},
		{"an empty stack", []byte("\x80\x02R."), "it wants 2 values of the stack, which has 0"},
		{"no mark", []byte("\x80\x02t."), "it wants a mark on the stack, which has none"},
		{"a mark in the way", []byte("\x80\x02N(NR."), "it wants 2 values of the stack, which has 1"},
		{"a dictionary of one half", []byte("\x80\x02}(U\x01au."), "no list and no dictionary"},
		{"a list for a key", []byte("\x80\x02}]Ns."), "the key of a dictionary is no text"},
		{"values for a text", []byte("\x80\x02U\x01a(Ne."), "no list and no dictionary"},
		{"the state of a text", []byte("\x80\x02U\x01aNb."), "the state of something that is no array"},
		{"a list", []byte("\x80\x02]."), "it has no dictionary"},
		{"an empty dictionary", []byte("\x80\x02}."), `its array "data" has the shape none, want [2 3072]`},
		{"a label that is too large", bytes.Replace(one, []byte("K\x01e"), []byte("K\x0ae"), 1),
			`"labels" has 10 at 1, want a label from 0 to 9`},
		{"no labels", append(append(slices.Clone(one[:labels]), "babels"...), one[labels+6:]...), `it has no list "labels" with 2 labels`},
		{"too many pictures", pythonFiles(dataset.Small("cifar10", 3, 3), files(f, 3, 3))["data_batch_1"],
			`its array "data" has the shape [3 3072], want [2 3072]`},
	} {
		dir := t.TempDir()
		write(t, dir, good)
		write(t, dir, map[string][]byte{"data_batch_1": c.content})
		_, err := f.Open(context.Background(), dataset.Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\x1b") ||
			!strings.HasPrefix(err.Error(), "cifar10: "+filepath.Join(dir, "data_batch_1")+": ") {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}

	dir := t.TempDir()
	write(t, dir, good)
	for name, content := range map[string][]byte{
		"it has no list \"label_names\" with 10 names": []byte("\x80\x02}."),
		"\"label_names\" has no name for class 1": bytes.Replace(good["batches.meta"], []byte("U\x07class 1"), []byte("U\x00"),
			1),
	} {
		write(t, dir, map[string][]byte{"batches.meta": content})
		if _, err := f.Open(context.Background(), dataset.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
	}
	if err := os.Remove(filepath.Join(dir, "batches.meta")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, f.PythonFolder()), map[string][]byte{"data_batch_1": one})
	_, err := f.Open(context.Background(), dataset.Options{Dir: dir})
	wantMissing(t, err, "cifar10", "a whole set")
}

// FuzzPickle: no file makes the reader panic or take much memory.
func FuzzPickle(f *testing.F) {
	small := dataset.Small("cifar100", 2, 1)
	f.Add(pythonFiles(small, files(small, 2, 1))["train"])
	for protocol := 2; protocol <= 5; protocol++ {
		b, err := os.ReadFile(fmt.Sprintf("testdata/python/%d/train", protocol))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94(NN\x88\x89u."))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		small.ReadPickle(b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+16*uint64(len(b)) {
			t.Errorf("%d bytes took %d", len(b), used)
		}
	})
}
