package dataset_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"igcsearch/trainer/dataset"
)

// records returns n records with the labels i mod classes for record first+i
// and random pixels.
func records(f dataset.Format, n, first int) []byte {
	g := rand.NewChaCha8([32]byte{byte(first), byte(n), byte(len(f.LabelCounts()))})
	b := make([]byte, n*f.RecordBytes())
	g.Read(b)
	for i := range n {
		for j, classes := range f.LabelCounts() {
			b[i*f.RecordBytes()+j] = byte((first + i) % classes)
		}
	}
	return b
}

// files returns the files of a small set.
func files(f dataset.Format, trainRecords, testRecords int) map[string][]byte {
	all := map[string][]byte{}
	for i, name := range f.TrainFiles() {
		all[name] = records(f, trainRecords, i*trainRecords)
	}
	counts := f.LabelCounts()
	if len(counts) == 1 {
		all["test_batch.bin"] = records(f, testRecords, 7)
		all["batches.meta.txt"] = names(10)
	} else {
		all["test.bin"] = records(f, testRecords, 7)
		all["fine_label_names.txt"] = names(100)
		all["coarse_label_names.txt"] = names(20)
	}
	return all
}

func names(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "class %d\n", i)
	}
	b.WriteString("\n") // as in the official batches.meta.txt
	return b.Bytes()
}

// write writes files to dir.
func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenCIFAR(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	for _, name := range []string{"cifar10", "cifar100", "cifar100-coarse"} {
		t.Run(name+" is found in the folder itself and in the archive's folder in it", func(t *testing.T) {
			t.Parallel()
			f := dataset.Small(name, 20, 30)
			flat, nested := t.TempDir(), t.TempDir()
			all := files(f, 20, 30)
			write(t, flat, all)
			write(t, filepath.Join(nested, f.Folder()), all)
			a, err := f.Open(ctx, dataset.Options{Dir: flat})
			if err != nil {
				t.Fatal(err)
			}
			b, err := f.Open(ctx, dataset.Options{Dir: nested})
			if err != nil {
				t.Fatal(err)
			}
			if a.Sum != b.Sum || a.Mean != b.Mean || a.Std != b.Std {
				t.Error("the two differ")
			}
			// Every record in the order of the files.
			var pixels []byte
			var labels []uint16
			for _, file := range f.TrainFiles() {
				for record := range slices.Chunk(all[file], f.RecordBytes()) {
					labels = append(labels, uint16(record[f.Label()]))
					pixels = append(pixels, record[len(f.LabelCounts()):]...)
				}
			}
			if !slices.Equal(a.Train.Labels, labels) || !bytes.Equal(a.Train.Pixels, pixels) {
				t.Error("the training split is not the records of the files")
			}
			classes := f.LabelCounts()[f.Label()]
			if a.Test.Len() != 30 || a.Validation.Len() != 0 || len(a.Classes) != classes || a.Classes[9] != "class 9" {
				t.Errorf("got %d test and %d validation pictures, classes %q", a.Test.Len(), a.Validation.Len(),
					a.Classes)
			}
			if a.Name != name || a.C != 3 || a.H != 32 || a.W != 32 {
				t.Errorf("got %s of %d×%d×%d", a.Name, a.C, a.H, a.W)
			}
		})
	}
}

// TestUnofficial: files with other bytes than the published ones are read and named.
func TestUnofficial(t *testing.T) {
	t.Parallel()
	f, dir := dataset.Small("cifar10", 20, 30), t.TempDir()
	all := files(f, 20, 30)
	f.Publish(all)
	write(t, dir, all)
	for _, want := range [][]string{nil, {"data_batch_2.bin"}} {
		s, err := f.Open(context.Background(), dataset.Options{Dir: dir})
		if err != nil || !slices.Equal(s.Unofficial, want) {
			t.Errorf("%q, %v, want %q", s.Unofficial, err, want)
		}
		var notes []string
		err = f.Get(context.Background(), dataset.GetOptions{Dir: dir, URL: "http://none.invalid",
			Note: func(line string) { notes = append(notes, line) }})
		if text := strings.Join(notes, "\n"); err != nil || strings.Contains(text, "data_batch_2.bin") != (want != nil) {
			t.Errorf("%q, %v", text, err)
		}
		other := bytes.Clone(all["data_batch_2.bin"])
		other[len(other)-1]++
		write(t, dir, map[string][]byte{"data_batch_2.bin": other})
	}
}

func TestOpenDamagedCIFAR(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	for _, c := range []struct {
		what, set string
		damage    func(dir string) error
		want      []string // parts of the message
	}{
		{"a truncated file", "cifar10",
			func(dir string) error { return os.Truncate(filepath.Join(dir, "data_batch_2.bin"), 12345) },
			[]string{"cifar10: ", "data_batch_2.bin: ends at byte 12345, want 61460 (20 records of 3073 bytes)"}},
		{"a file that is too long", "cifar10",
			func(dir string) error { return os.Truncate(filepath.Join(dir, "test_batch.bin"), 92191) },
			[]string{"test_batch.bin: ends at byte 92191, want 92190 (30 records of 3073 bytes)"}},
		{"a label that is no class", "cifar10",
			func(dir string) error { return poke(filepath.Join(dir, "data_batch_5.bin"), 3*3073, 10) },
			[]string{"data_batch_5.bin: byte 9219 is 10, want a label from 0 to 9"}},
		{"a coarse label that is no class", "cifar100",
			func(dir string) error { return poke(filepath.Join(dir, "train.bin"), 3074, 20) },
			[]string{"train.bin: byte 3074 is 20, want a label from 0 to 19"}},
		{"a fine label that is no class", "cifar100",
			func(dir string) error { return poke(filepath.Join(dir, "test.bin"), 3074+1, 100) },
			[]string{"test.bin: byte 3075 is 100, want a label from 0 to 99"}},
		{"a file that is missing", "cifar10",
			func(dir string) error { return os.Remove(filepath.Join(dir, "data_batch_4.bin")) },
			[]string{"data_batch_4.bin: no such file"}},
		{"a folder in place of a file", "cifar100",
			func(dir string) error {
				return errors.Join(os.Remove(filepath.Join(dir, "test.bin")),
					os.Mkdir(filepath.Join(dir, "test.bin"), 0o777))
			},
			[]string{"test.bin: it is no regular file but a folder"}},
		{"too few class names", "cifar100",
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, "fine_label_names.txt"), names(99), 0o666)
			},
			[]string{"fine_label_names.txt: has 99 lines, want the names of 100 classes"}},
		{"an empty class name", "cifar10",
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, "batches.meta.txt"), []byte("a\nb\n\nd\ne\nf\ng\nh\ni\nj\n"),
					0o666)
			},
			[]string{"batches.meta.txt: line 3 is empty, want the name of class 2"}},
	} {
		t.Run(c.what+" is refused with its place and what was expected", func(t *testing.T) {
			t.Parallel()
			f, dir := dataset.Small(c.set, 20, 30), t.TempDir()
			write(t, dir, files(f, 20, 30))
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := f.Open(ctx, dataset.Options{Dir: dir})
			wantError(t, err, append(c.want, dir)...)
			if errors.Is(err, fs.ErrNotExist) {
				wantMissing(t, err, "cifar10", "a whole set")
			}
		})
	}

	t.Run("missing files are reported with both places and the ways to name or fetch them", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := dataset.Open(ctx, dataset.Options{Name: "cifar10", Dir: dir})
		wantError(t, err, dir+" or "+filepath.Join(dir, "cifar-10-batches-bin"))
		wantMissing(t, err, "cifar10", "")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error("the error does not wrap fs.ErrNotExist")
		}
		for _, name := range []string{"cifar100", "cifar100-coarse"} {
			_, err = dataset.Open(ctx, dataset.Options{Name: name})
			wantError(t, err, name+": ", "no data folder is named")
			wantMissing(t, err, "cifar100", "")
		}
	})
}

func TestOpenCIFARCancelled(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	t.Run("a cancelled context ends the reading", func(t *testing.T) {
		t.Parallel()
		f, dir := dataset.Small("cifar10", 20, 30), t.TempDir()
		write(t, dir, files(f, 20, 30))
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := f.Open(ctx, dataset.Options{Dir: dir}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// TestOpenFullSize reads generated files of the official size by the public
// function.
func TestOpenFullSize(t *testing.T) {
	t.Parallel()
	f, dir := dataset.Small("cifar100", 50000, 10000), t.TempDir()
	for name, n := range map[string]int{"train.bin": 50000, "test.bin": 10000} {
		// Holes in the files are pixels of 0; only the labels are written.
		path := filepath.Join(dir, name)
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Truncate(int64(n * f.RecordBytes())); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := file.WriteAt([]byte{byte(i % 20), byte(i % 100), byte(i)},
				int64(i*f.RecordBytes())); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, map[string][]byte{"fine_label_names.txt": names(100)})
	s, err := dataset.Open(context.Background(), dataset.Options{Name: "cifar100", Dir: dir, Validation: 500,
		TrainPictures: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len() != 1000 || s.Validation.Len() != 500 || s.Test.Len() != 10000 {
		t.Errorf("got %d + %d training and %d test pictures", s.Train.Len(), s.Validation.Len(), s.Test.Len())
	}
	for _, i := range []int{0, 1234, 9999} {
		if label, pixel := s.Test.Labels[i], s.Test.Pixels[i*3072]; label != uint16(i%100) || pixel != uint8(i) {
			t.Errorf("test picture %d has label %d and first pixel %d", i, label, pixel)
		}
	}
}

func poke(path string, at int64, b byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte{b}, at)
	return errors.Join(err, file.Close())
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error is\n\t%v\nwant in it\n\t%s", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines:\n%v", err)
	}
}

// wantMissing checks what a MissingError says of Get.
func wantMissing(t *testing.T, err error, get, fetches string) {
	t.Helper()
	var e *dataset.MissingError
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || e.Get != get || e.Fetches != fetches {
		t.Errorf("the error is %#v: %v\nwant that %q fetches %q", e, err, get, fetches)
	}
}

func TestReadRecords(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar100", 0, 0)
	all := records(f, 5, 0)
	t.Run("a reader that gives single bytes is read whole", func(t *testing.T) {
		t.Parallel()
		s, err := f.ReadRecords(iotest.OneByteReader(bytes.NewReader(all)), 5)
		if err != nil || s.Len() != 5 || !bytes.Equal(s.Pixels[3072:2*3072], all[3074+2:2*3074]) {
			t.Errorf("got %d records, %v", s.Len(), err)
		}
	})
	t.Run("bytes after the last record are refused", func(t *testing.T) {
		t.Parallel()
		_, err := f.ReadRecords(bytes.NewReader(all), 4)
		wantError(t, err, "some.bin: there are more bytes at 12296, want the end there (4 records of 3074 bytes)")
	})
	t.Run("an end at any place is refused with that place", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{0, 1, 2, 3073, 3074, 3075, 5*3074 - 1} {
			_, err := f.ReadRecords(bytes.NewReader(all[:n]), 5)
			wantError(t, err, fmt.Sprintf("some.bin: ends at byte %d, want 15370 (5 records of 3074 bytes)", n))
		}
	})
	t.Run("the reader's own error is kept", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("the disk is on fire")
		_, err := f.ReadRecords(io.MultiReader(bytes.NewReader(all[:4000]), iotest.ErrReader(broken)), 5)
		wantError(t, err, "read some.bin at byte 4000: the disk is on fire")
		if !errors.Is(err, broken) {
			t.Error("the error is not wrapped")
		}
	})
}

func FuzzReadRecords(f *testing.F) {
	ten, hundred := dataset.Small("cifar10", 0, 0), dataset.Small("cifar100", 0, 0)
	f.Add(records(ten, 3, 0), 3, false)
	f.Add(records(hundred, 2, 5), 2, true)
	f.Add(records(ten, 3, 0)[:5000], 3, false)
	f.Add([]byte{200}, 1, false)
	f.Add([]byte{19, 100}, 1, true)
	f.Add([]byte{}, 0, false)
	f.Fuzz(func(t *testing.T, b []byte, n int, fine bool) {
		if n < 0 || n > 1000 {
			return
		}
		format := ten
		if fine {
			format = hundred
		}
		s, err := format.ReadRecords(bytes.NewReader(b), n)
		// What is accepted has the size and holds the input, byte for byte.
		counts := format.LabelCounts()
		valid := len(b) == n*format.RecordBytes()
		for i := 0; valid && i < n; i++ {
			for j, classes := range counts {
				valid = valid && int(b[i*format.RecordBytes()+j]) < classes
			}
		}
		if valid != (err == nil) {
			t.Fatalf("%d bytes for %d records: valid is %t, the error %v", len(b), n, valid, err)
		}
		if err != nil {
			return
		}
		for i := range n {
			record := b[i*format.RecordBytes():][:format.RecordBytes()]
			if s.Labels[i] != uint16(record[format.Label()]) ||
				!bytes.Equal(s.Pixels[i*3072:(i+1)*3072], record[len(counts):]) {
				t.Fatalf("record %d is not what was read", i)
			}
		}
	})
}

// smallCIFAR writes a small CIFAR-10, 100 training pictures with 10 of each class, to
// dir. open opens it.
func smallCIFAR(t *testing.T) (open func(*testing.T, dataset.Options) *dataset.Set, f dataset.Format, dir string) {
	t.Helper()
	f, dir = dataset.Small("cifar10", 20, 30), t.TempDir()
	write(t, dir, files(f, 20, 30))
	return func(t *testing.T, o dataset.Options) *dataset.Set {
		t.Helper()
		o.Dir = dir
		s, err := f.Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, f, dir
}

func TestSelection(t *testing.T) {
	t.Parallel()
	open, _, _ := smallCIFAR(t)

	t.Run("every split is balanced, and none shares a picture with another", func(t *testing.T) {
		t.Parallel()
		for _, o := range []dataset.Options{
			{Validation: 20, TrainPictures: 30, TestPictures: 10},
			{Validation: 23, TrainPictures: 41, TestPictures: 19},
			{Validation: 99}, {Validation: 1, TrainPictures: 99}, {TrainPictures: 3},
		} {
			s := open(t, o)
			train := o.TrainPictures
			if train == 0 {
				train = 100 - o.Validation
			}
			if s.Train.Len() != train || s.Validation.Len() != o.Validation || len(s.Train.Pixels) != train*3072 {
				t.Errorf("%+v: got %d + %d pictures", o, s.Train.Len(), s.Validation.Len())
			}
			for _, split := range []dataset.Split{s.Train, s.Validation, s.Test} {
				if least, most := spread(split); most-least > 1 {
					t.Errorf("%+v: classes have %d to %d pictures", o, least, most)
				}
			}
			both := pictures(s.Train)
			for p, label := range pictures(s.Validation) {
				if _, ok := both[p]; ok {
					t.Errorf("%+v: a validation picture is in the training split", o)
				}
				both[p] = label
			}
			if len(both) != s.Train.Len()+s.Validation.Len() {
				t.Errorf("%+v: pictures are repeated", o)
			}
			for p, label := range pictures(open(t, dataset.Options{}).Train) {
				if l, ok := both[p]; ok && l != label {
					t.Errorf("%+v: a picture has the label %d, want %d", o, l, label)
				}
			}
		}
	})
}

func TestSelectionOfSmallClasses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	open, _, _ := smallCIFAR(t)

	t.Run("classes that run out leave their share to the others", func(t *testing.T) {
		t.Parallel()
		// Class c has c+1 pictures. Of 30, classes 0, 1 and 2 give all they
		// have, 6; the other seven share 24, so four give 3 and three give 4.
		f, dir := dataset.Small("cifar10", 11, 30), t.TempDir()
		all := files(f, 11, 30)
		var labels []byte
		for c := range 10 {
			labels = append(labels, bytes.Repeat([]byte{byte(c)}, c+1)...)
		}
		for i, label := range labels {
			all[f.TrainFiles()[i/11]][i%11*3073] = label
		}
		write(t, dir, all)
		s, err := f.Open(ctx, dataset.Options{Dir: dir, Validation: 30})
		if err != nil {
			t.Fatal(err)
		}
		counts := make([]int, 10)
		for _, label := range s.Validation.Labels {
			counts[label]++
		}
		if want := []int{1, 2, 3, 4, 4, 4, 3, 3, 3, 3}; !slices.Equal(counts, want) {
			t.Errorf("the classes gave %v, want %v", counts, want)
		}
	})

	t.Run("the split seed decides which pictures, and a larger number holds a smaller one's", func(t *testing.T) {
		t.Parallel()
		small := open(t, dataset.Options{Validation: 20, TrainPictures: 30, TestPictures: 10, SplitSeed: 1})
		again := open(t, dataset.Options{Validation: 20, TrainPictures: 30, TestPictures: 10, SplitSeed: 1})
		other := open(t, dataset.Options{Validation: 20, TrainPictures: 30, TestPictures: 10, SplitSeed: 2})
		if small.Sum != again.Sum {
			t.Error("the same seed chose other pictures")
		}
		for _, pair := range [][2]dataset.Split{{small.Train, other.Train}, {small.Validation, other.Validation},
			{small.Test, other.Test}} {
			if bytes.Equal(pair[0].Pixels, pair[1].Pixels) {
				t.Error("another seed chose the same pictures")
			}
		}
		large := open(t, dataset.Options{Validation: 20, TrainPictures: 45, TestPictures: 25, SplitSeed: 1})
		wide := open(t, dataset.Options{Validation: 47, SplitSeed: 1})
		for _, pair := range [][2]dataset.Split{{small.Train, large.Train}, {small.Test, large.Test},
			{small.Validation, wide.Validation}} {
			have := pictures(pair[1])
			for p := range pictures(pair[0]) {
				if _, ok := have[p]; !ok {
					t.Fatal("a larger number of pictures misses one of a smaller number's")
				}
			}
		}
	})
}

func TestSelectionErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	open, f, dir := smallCIFAR(t)

	t.Run("more pictures than there are is an error with the numbers", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			o    dataset.Options
			want string
		}{
			{dataset.Options{TrainPictures: 101}, "cifar10: train_pictures is 101: want at most 100"},
			{dataset.Options{TrainPictures: 81, Validation: 20},
				"cifar10: train_pictures is 81: want at most 80 (100 pictures less 20 for validation)"},
			{dataset.Options{Validation: 100},
				"cifar10: validation is 100: want fewer than the 100 training pictures there are"},
			{dataset.Options{TestPictures: 31}, "cifar10: test_pictures is 31: want at most the 30 there are"},
			{dataset.Options{TestPictures: -1}, "cifar10: test_pictures is -1: want 0 or more"},
			{dataset.Options{Validation: -1}, "cifar10: validation is -1: want 0 or more"},
			{dataset.Options{TrainPictures: -1}, "cifar10: train_pictures is -1: want 0 or more"},
		} {
			c.o.Dir = dir
			_, err := f.Open(ctx, c.o)
			wantError(t, err, c.want)
		}
	})

	t.Run("mean and standard deviation are those of the training pictures in use", func(t *testing.T) {
		t.Parallel()
		s := open(t, dataset.Options{Validation: 20, TrainPictures: 30})
		for c := range 3 {
			var sum, squares, n float64
			for i := range s.Train.Len() {
				for _, x := range s.Train.Pixels[i*3072+c*1024:][:1024] {
					v := float64(x) / 255
					sum, squares, n = sum+v, squares+v*v, n+1
				}
			}
			mean := sum / n
			std := math.Sqrt(squares/n - mean*mean)
			if math.Abs(float64(s.Mean[c])-mean) > 1e-6 || math.Abs(float64(s.Std[c])-std) > 1e-6 {
				t.Errorf("channel %d: got %v and %v, want %v and %v", c, s.Mean[c], s.Std[c], mean, std)
			}
		}
	})
}

func TestSetStatistics(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	open, _, _ := smallCIFAR(t)

	t.Run("a channel of one value has standard deviation 1 and is zero when normalised", func(t *testing.T) {
		t.Parallel()
		f, dir := dataset.Small("cifar10", 2, 10), t.TempDir()
		all := files(f, 2, 10)
		for _, name := range f.TrainFiles() {
			for record := range slices.Chunk(all[name], f.RecordBytes()) {
				copy(record[1+1024:], bytes.Repeat([]byte{77}, 1024))
			}
		}
		write(t, dir, all)
		s, err := f.Open(ctx, dataset.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]float32, 3*1024*16)
		s.Fill(dst, &s.Train, []int{0}, nil, 0, 0)
		for i, v := range dst {
			if channel := i / (32 * 16) % 3; channel == 1 && math.Abs(float64(v)) > 1e-6 {
				t.Fatalf("value %d is %v, want 0", i, v)
			}
		}
		if s.Std[1] != 1 {
			t.Errorf("the standard deviation is %v, want 1", s.Std[1])
		}
	})

	t.Run("the sum is SHA-256 over geometry, labels and pixels", func(t *testing.T) {
		t.Parallel()
		s := open(t, dataset.Options{Validation: 20})
		var b []byte
		for _, n := range []uint64{3, 32, 32, 10} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		for _, split := range []dataset.Split{s.Train, s.Validation, s.Test} {
			b = binary.LittleEndian.AppendUint64(b, uint64(split.Len()))
			for _, label := range split.Labels {
				b = append(b, byte(label))
			}
			b = append(b, split.Pixels...)
		}
		sum := sha256.Sum256(b)
		if want := hex.EncodeToString(sum[:]); s.Sum != want {
			t.Errorf("got %s, want %s", s.Sum, want)
		}
	})
}

// pictures returns the pictures of a split as a set of their pixels, all
// of which differ.
func pictures(s dataset.Split) map[string]uint16 {
	m := map[string]uint16{}
	for i, label := range s.Labels {
		m[string(s.Pixels[i*3072:(i+1)*3072])] = label
	}
	return m
}

func spread(s dataset.Split) (least, most int) {
	counts := make([]int, 10)
	for _, label := range s.Labels {
		counts[label]++
	}
	return slices.Min(counts), slices.Max(counts)
}

// TestRealCIFAR10 reads the real pictures where they are.
func TestRealCIFAR10(t *testing.T) {
	dir := os.Getenv("IGCSEARCH_DATA")
	if dir == "" {
		t.Skip("IGCSEARCH_DATA names no folder with CIFAR-10")
	}
	s, err := dataset.Open(context.Background(), dataset.Options{Name: "cifar10", Dir: dir})
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mean %v, standard deviation %v, sum %s", s.Mean, s.Std, s.Sum)
	// The mean and standard deviation that are in common use for CIFAR-10, to
	// the two digits that a JPEG copy keeps.
	for c, want := range [3][2]float64{{0.4914, 0.2470}, {0.4822, 0.2435}, {0.4465, 0.2616}} {
		if math.Abs(float64(s.Mean[c])-want[0]) > 0.005 || math.Abs(float64(s.Std[c])-want[1]) > 0.005 {
			t.Errorf("channel %d: got %v and %v, want %v", c, s.Mean[c], s.Std[c], want)
		}
	}
	if s.Classes[0] != "airplane" || s.Classes[9] != "truck" {
		t.Errorf("the classes are %q", s.Classes)
	}
}
