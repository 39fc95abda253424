package dataset_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"igcsearch/trainer/dataset"
)

// The writer below follows MathWorks' description of the format ("MAT-File
// Format", Level 5) and shares nothing with the reader.

// order is a byte order that can be read and appended to.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// matHead is the 128 bytes that a MAT-file begins with.
func matHead(o order) []byte {
	text := "MATLAB 5.0 MAT-file, Platform: GLNXA64"
	b := []byte(text + strings.Repeat(" ", 116-len(text)))
	b = append(b, make([]byte, 8)...)
	b = o.AppendUint16(b, 0x0100)
	return o.AppendUint16(b, 'M'<<8|'I')
}

// matElement is a tag and its data, small if they fit and may be.
func matElement(o order, kind int, data []byte, small bool) []byte {
	if small && len(data) >= 1 && len(data) <= 4 {
		b := o.AppendUint32(nil, uint32(len(data))<<16|uint32(kind))
		return append(append(b, data...), make([]byte, 4-len(data))...)
	}
	b := o.AppendUint32(nil, uint32(kind))
	b = append(o.AppendUint32(b, uint32(len(data))), data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// matVariable is an array of one storage type.
func matVariable(o order, name string, class uint32, dims []int, kind int, data []byte, small bool) []byte {
	var sizes []byte
	for _, d := range dims {
		sizes = o.AppendUint32(sizes, uint32(d))
	}
	flags := o.AppendUint32(o.AppendUint32(nil, class), 0)
	return matElement(o, 14, slices.Concat(
		matElement(o, 6, flags, false), matElement(o, 5, sizes, false),
		matElement(o, 1, []byte(name), small), matElement(o, kind, data, small)), false)
}

// matCompressed is a variable as MATLAB 7 writes it. It is not padded.
func matCompressed(o order, variable []byte) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(variable)
	w.Close()
	b := o.AppendUint32(nil, 15)
	return append(o.AppendUint32(b, uint32(z.Len())), z.Bytes()...)
}

// digit is the value of a pixel in the file's picture n, and its label there.
func digit(first, n, row, column, channel int) byte {
	return byte(7*(first+n) + 3*row + 5*column + 101*channel + row*column)
}
func label(first, n int) int { return 1 + (first+n)%10 }

// matPixels is X as MATLAB stores it: the row runs fastest.
func matPixels(first, n int) []byte {
	var b []byte
	for i := range n {
		for c := range 3 {
			for x := range 32 {
				for y := range 32 {
					b = append(b, digit(first, i, y, x, c))
				}
			}
		}
	}
	return b
}

func matLabels(first, n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, byte(label(first, i)))
	}
	return b
}

// matFile is a file of n pictures with the given form.
func matFile(o order, first, n int, compressed bool) []byte {
	b := matHead(o)
	for _, v := range [][]byte{
		matVariable(o, "X", 9, []int{32, 32, 3, n}, 2, matPixels(first, n), true),
		matVariable(o, "y", 9, []int{n, 1}, 2, matLabels(first, n), true),
	} {
		if compressed {
			v = matCompressed(o, v)
		}
		b = append(b, v...)
	}
	return b
}

// wantDigits checks that a split has the pictures of matFile.
func wantDigits(t *testing.T, s dataset.Split, first, n int) {
	t.Helper()
	if s.Len() != n || len(s.Pixels) != n*3072 {
		t.Fatalf("got %d labels and %d pixels, want %d pictures", s.Len(), len(s.Pixels), n)
	}
	for i := range n {
		if int(s.Labels[i]) != label(first, i)%10 {
			t.Errorf("picture %d has the label %d, want %d", i, s.Labels[i], label(first, i)%10)
		}
		for at, got := range s.Pixels[i*3072 : (i+1)*3072] {
			if want := digit(first, i, at/32%32, at%32, at/1024); got != want {
				t.Fatalf("picture %d, channel %d, row %d, column %d is %d, want %d", i, at/1024, at/32%32, at%32, got,
					want)
			}
		}
	}
}

func TestReadMAT(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	little, big := order(binary.LittleEndian), order(binary.BigEndian)

	for _, o := range []order{little, big} {
		for _, compressed := range []bool{false, true} {
			for _, n := range []int{3, 12} { // labels in a small element, and not
				t.Run(fmt.Sprintf("%d pictures in %v, compressed %v, are transposed to rows", n, o, compressed),
					func(t *testing.T) {
						t.Parallel()
						s, err := dataset.ReadMAT(ctx,
							iotest.OneByteReader(bytes.NewReader(matFile(o, 5, n, compressed))),
							n)
						if err != nil {
							t.Fatal(err)
						}
						wantDigits(t, s, 5, n)
					})
			}
		}
	}

	t.Run("a file that scipy wrote is read", func(t *testing.T) {
		t.Parallel()
		raw, err := os.ReadFile("testdata/svhn.mat") // by testdata/svhn.py
		if err != nil {
			t.Fatal(err)
		}
		s, err := dataset.ReadMAT(ctx, bytes.NewReader(raw), 3)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.Labels, []uint16{1, 0, 3}) {
			t.Errorf("labels %d", s.Labels)
		}
		for at, got := range s.Pixels {
			n, channel, row, column := at/3072, at/1024%3, at/32%32, at%32
			if want := byte(row*7 + column*3 + channel*50 + n*11); got != want {
				t.Fatalf("picture %d, channel %d, row %d, column %d is %d, want %d", n, channel, row, column, got, want)
			}
		}
	})

	t.Run("labels are read in every type that MATLAB may store them in", func(t *testing.T) {
		t.Parallel()
		for _, o := range []order{little, big} {
			var shorts, ints, singles, doubles []byte
			for _, l := range matLabels(0, 3) {
				shorts = o.AppendUint16(shorts, uint16(l))
				ints = o.AppendUint32(ints, uint32(l))
				singles = o.AppendUint32(singles, math.Float32bits(float32(l)))
				doubles = o.AppendUint64(doubles, math.Float64bits(float64(l)))
			}
			for kind, data := range map[int][]byte{1: matLabels(0, 3), 2: matLabels(0, 3), 3: shorts, 4: shorts,
				5: ints, 6: ints, 7: singles, 9: doubles} {
				b := slices.Concat(matHead(o), matVariable(o, "y", 6, []int{3, 1}, kind, data, true),
					matVariable(o, "X", 9, []int{32, 32, 3, 3}, 2, matPixels(0, 3), false))
				s, err := dataset.ReadMAT(ctx, bytes.NewReader(b), 3)
				if err != nil {
					t.Fatalf("type %d: %v", kind, err)
				}
				wantDigits(t, s, 0, 3)
			}
		}
	})
}

func TestReadMATVariables(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	little := order(binary.LittleEndian)
	x := matVariable(little, "X", 9, []int{32, 32, 3, 3}, 2, matPixels(0, 3), true)
	y := matVariable(little, "y", 9, []int{3, 1}, 2, matLabels(0, 3), true)
	file := func(variables ...[]byte) []byte {
		return slices.Concat(append([][]byte{matHead(little)}, variables...)...)
	}

	t.Run("other variables are passed over", func(t *testing.T) {
		t.Parallel()
		other := matVariable(little, "note", 4, []int{1, 5}, 16, []byte("hello"), true)
		s, err := dataset.ReadMAT(ctx, bytes.NewReader(file(other, matCompressed(little, other), x,
			matCompressed(little, other), y, other)), 3)
		if err != nil {
			t.Fatal(err)
		}
		wantDigits(t, s, 0, 3)
	})
}

func TestReadDamagedMAT(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	little := order(binary.LittleEndian)
	x := matVariable(little, "X", 9, []int{32, 32, 3, 3}, 2, matPixels(0, 3), true)
	y := matVariable(little, "y", 9, []int{3, 1}, 2, matLabels(0, 3), true)
	file := func(variables ...[]byte) []byte {
		return slices.Concat(append([][]byte{matHead(little)}, variables...)...)
	}
	bad := func(change func(b []byte)) []byte {
		b := file(x, y)
		change(b)
		return b
	}
	badLabel := slices.Clone(matLabels(0, 3))
	badLabel[1] = 11
	half := little.AppendUint64(nil, math.Float64bits(1.5))
	short := file(matVariable(little, "note", 4, []int{1, 5}, 16, []byte("hello"), true))
	short[132] = 8
	broken := file(matCompressed(little, x), y)
	broken[len(broken)-len(y)-1] ^= 1 // of the checksum

	for _, c := range []struct {
		what string
		file []byte
		want string
	}{
		{"an empty file", nil, "some.mat: ends at byte 0, in the head of the file"},
		{"a file that ends in its head", file()[:100], "some.mat: ends at byte 100, in the head of the file"},
		{"a file that is no MAT-file", bytes.Repeat([]byte("<html> "), 40),
			`some.mat: byte 126: "<h", want "IM" or "MI": this is no MAT-file of level 5`},
		{"a MAT-file of another level", bad(func(b []byte) { b[125] = 2 }),
			"byte 124: the version is 0x200, want 0x100"},
		{"a file without variables", file(), "ends at byte 128 without the variable X"},
		{"a file without y", file(x), fmt.Sprintf("ends at byte %d without the variable y", 128+len(x))},
		{"a file with two X", file(x, x, y), fmt.Sprintf("byte %d: the variable X comes a second time", 128+len(x))},
		{"a variable that is no array", file(matElement(little, 2, []byte("12345678"), false)),
			"byte 128: a variable has the type 2, want 14 or 15, compressed"},
		{"a file that ends in the pixels", file(x, y)[:5000], "ends at byte 5000, in the pixels"},
		{"a file that ends in a head", file(x, y)[:130], "ends at byte 130, in the head of a variable"},
		{"too few pictures", file(matVariable(little, "X", 9, []int{32, 32, 3, 2}, 2, matPixels(0, 2), true), y),
			"byte 152: the dimensions of X are [32 32 3 2], want [32 32 3 3]"},
		{"pictures of another class", file(matVariable(little, "X", 6, []int{32, 32, 3, 3}, 2, matPixels(0, 3), true),
			y), "byte 136: the flags of X are 0x6, want real numbers of class 9"},
		{"complex labels", file(matVariable(little, "y", 0x806, []int{3, 1}, 2, matLabels(0, 3), true)),
			"the flags of y are 0x806"},
		{"pixels of another type", file(matVariable(little, "X", 9, []int{32, 32, 3, 3}, 1, matPixels(0, 3), true), y),
			"the pixels have the type 1 and 9216 bytes, want 2 and 9216"},
		{"a length that lies", bad(func(b []byte) { b[132] += 8 }), "X ends here, want its end at byte"},
		{"a length that ends before the name", short, "byte 128: a variable has 8 bytes, but its name is beyond them"},
		{"labels as a row", file(x, matVariable(little, "y", 9, []int{1, 3}, 2, matLabels(0, 3), true)),
			"the dimensions of y are [1 3], want [3 1]"},
		{"a label that is no digit", file(x, matVariable(little, "y", 9, []int{3, 1}, 2, badLabel, true)),
			"the label of picture 1 is 11, want a whole number from 1 to 10"},
		{"a label that is no whole number",
			file(matVariable(little, "y", 6, []int{3, 1}, 9, slices.Concat(half, half, half), true)),
			"the label of picture 0 is 1.5, want"},
		{"a small element that is too long",
			file(matElement(little, 14, slices.Concat(little.AppendUint32(nil, 5<<16|6), make([]byte, 8)), false)),
			"is a small element of 5 bytes, want at most 4"},
		{"a name that is too long", file(matVariable(little, strings.Repeat("x", 64), 9, []int{3, 1}, 2,
			matLabels(0, 3), true)), "the name of a variable has 64 bytes, want at most 63"},
		{"bytes that are not compressed", file(matElement(little, 15, []byte("this is no zlib"), false)),
			"byte 128: a compressed variable: zlib: invalid header"},
		{"compressed bytes that are damaged", broken,
			"in the variable compressed at byte 128: byte 9280: zlib: invalid checksum"},
		{"a compressed variable that ends early", file(matCompressed(little, x[:4000])),
			"in the variable compressed at byte 128: ends at byte 4000, in the pixels"},
		{"a compressed variable that goes on", file(matCompressed(little, append(slices.Clone(x), 0))),
			"there are more bytes, want the end there"},
	} {
		t.Run(c.what+" is refused with its place and what was expected", func(t *testing.T) {
			t.Parallel()
			_, err := dataset.ReadMAT(ctx, bytes.NewReader(c.file), 3)
			wantError(t, err, "some.mat: ", c.want)
		})
	}
}

func TestReadMATErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	little := order(binary.LittleEndian)
	x := matVariable(little, "X", 9, []int{32, 32, 3, 3}, 2, matPixels(0, 3), true)
	y := matVariable(little, "y", 9, []int{3, 1}, 2, matLabels(0, 3), true)
	file := func(variables ...[]byte) []byte {
		return slices.Concat(append([][]byte{matHead(little)}, variables...)...)
	}

	t.Run("the reader's own error is kept, and a cancelled context ends the reading", func(t *testing.T) {
		t.Parallel()
		fire := errors.New("the disk is on fire")
		if _, err := dataset.ReadMAT(ctx, iotest.ErrReader(fire), 3); !errors.Is(err, fire) {
			t.Errorf("got %v, want %v", err, fire)
		}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := dataset.ReadMAT(ctx, bytes.NewReader(file(x, y)), 3); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// FuzzMAT: no bytes make the reader panic or keep more than the pictures that
// it was told of.
func FuzzMAT(f *testing.F) {
	little, big := order(binary.LittleEndian), order(binary.BigEndian)
	for _, o := range []order{little, big} {
		for _, compressed := range []bool{false, true} {
			f.Add(matFile(o, 0, 2, compressed))
		}
	}
	whole := matFile(little, 0, 2, false)
	f.Add(whole[:300])
	// Dimensions and lengths of 4 G.
	f.Add(append(matHead(little), matVariable(little, "X", 9, []int{32, 32, 3, -1}, 2, nil, true)...))
	f.Add(append(matHead(little), bytes.Repeat([]byte{14, 0, 0, 0, 255, 255, 255, 255}, 9)...))
	f.Add(append(matHead(big), 0, 0, 0, 15, 255, 255, 255, 255, 0x78, 0x9c))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := dataset.ReadMAT(context.Background(), bytes.NewReader(b), 2)
		if s.Len() > 2 || len(s.Pixels) > 2*3072 {
			t.Errorf("%d labels and %d pixels of two pictures", s.Len(), len(s.Pixels))
		}
		if err == nil && (s.Len() != 2 || len(s.Pixels) != 2*3072 || slices.Max(s.Labels) > 9) {
			t.Errorf("accepted with the labels %d and %d pixels", s.Labels, len(s.Pixels))
		}
	})
}

// svhnFiles returns the files of a small set: 50 training, 40 extra and 20 test
// pictures, one of ten of each class.
func svhnFiles() map[string][]byte {
	return map[string][]byte{
		"train_32x32.mat": matFile(binary.LittleEndian, 0, 50, true),
		"extra_32x32.mat": matFile(binary.LittleEndian, 100, 40, true),
		"test_32x32.mat":  matFile(binary.LittleEndian, 200, 20, true),
	}
}

func TestSVHN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := dataset.SmallSVHN(50, 40, 20, 2, 1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "svhn"), svhnFiles())

	t.Run("all of train and extra are for training, and label 10 is the digit 0", func(t *testing.T) {
		t.Parallel()
		for _, place := range []string{dir, filepath.Join(dir, "svhn")} {
			s, err := f.Open(ctx, dataset.Options{Dir: place})
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != "svhn" || s.C != 3 || s.H != 32 || s.W != 32 || s.Validation.Len() != 0 ||
				!slices.Equal(s.Classes, strings.Split("0123456789", "")) {
				t.Errorf("got %s of %d×%d×%d with %d validation pictures, classes %q", s.Name, s.C, s.H, s.W,
					s.Validation.Len(), s.Classes)
			}
			wantDigits(t, dataset.Split{Pixels: s.Train.Pixels[:50*3072], Labels: s.Train.Labels[:50]}, 0, 50)
			wantDigits(t, dataset.Split{Pixels: s.Train.Pixels[50*3072:], Labels: s.Train.Labels[50:]}, 100, 40)
			wantDigits(t, s.Test, 200, 20)
			if s.Train.Labels[9] != 0 { // 1 … 10
				t.Errorf("the label 10 became %d, want 0", s.Train.Labels[9])
			}
		}
	})

	t.Run("the validation pictures are so many of each class of train and of extra", func(t *testing.T) {
		t.Parallel()
		kept, err := f.Open(ctx, dataset.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		from := map[string]int{} // the place of a picture among all
		for i := range kept.Train.Len() {
			from[string(kept.Train.Pixels[i*3072:(i+1)*3072])] = i
		}
		seen := map[string]bool{}
		for seed := range 3 {
			s, err := f.Open(ctx, dataset.Options{Dir: dir, Validation: 30, SplitSeed: seed})
			if err != nil {
				t.Fatal(err)
			}
			if s.Validation.Len() != 30 || s.Train.Len() != 60 {
				t.Fatalf("got %d + %d pictures, want 60 + 30", s.Train.Len(), s.Validation.Len())
			}
			var counts [10][2]int // of train and extra
			for i := range 30 {
				pixels := string(s.Validation.Pixels[i*3072 : (i+1)*3072])
				at := from[pixels]
				counts[s.Validation.Labels[i]][at/50]++
				if kept.Train.Labels[at] != s.Validation.Labels[i] {
					t.Errorf("validation picture %d has the label of another", i)
				}
			}
			for class, n := range counts {
				if n != [2]int{2, 1} {
					t.Errorf("class %d has %d validation pictures of train and extra, want 2 and 1", class, n)
				}
			}
			all := map[string]bool{}
			for _, split := range []dataset.Split{s.Train, s.Validation} {
				for p := range slices.Chunk(split.Pixels, 3072) {
					all[string(p)] = true
				}
			}
			if len(all) != len(from) {
				t.Errorf("the two splits have %d different pictures, want %d", len(all), len(from))
			}
			seen[s.Sum] = true
		}
		if len(seen) != 3 {
			t.Errorf("three seeds drew %d splits", len(seen))
		}
	})
}

func TestSVHNErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := dataset.SmallSVHN(50, 40, 20, 2, 1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "svhn"), svhnFiles())

	t.Run("training and test pictures are bounded as elsewhere", func(t *testing.T) {
		t.Parallel()
		s, err := f.Open(ctx, dataset.Options{Dir: dir, Validation: 30, TrainPictures: 20, TestPictures: 10})
		if err != nil {
			t.Fatal(err)
		}
		if s.Train.Len() != 20 || s.Validation.Len() != 30 || s.Test.Len() != 10 {
			t.Errorf("got %d, %d and %d pictures", s.Train.Len(), s.Validation.Len(), s.Test.Len())
		}
	})

	t.Run("another number of validation pictures is an error, and so are classes that are too small",
		func(t *testing.T) {
			t.Parallel()
			_, err := dataset.Open(ctx, dataset.Options{Name: "svhn", Dir: dir, Validation: 100})
			wantError(t, err, "svhn: validation is 100: want 0 (none) or 6000 "+
				"(400 of each class of the training file and 200 of the extra file)")
			big := dataset.SmallSVHN(50, 40, 20, 1, 6)
			_, err = big.Open(ctx, dataset.Options{Dir: dir, Validation: 70})
			wantError(t, err, "svhn: of class 0, 0 pictures are missing in train_32x32.mat "+
				"and 2 in extra_32x32.mat for validation")
		})

	t.Run("a missing file says how to get it", func(t *testing.T) {
		t.Parallel()
		less := t.TempDir()
		all := svhnFiles()
		delete(all, "extra_32x32.mat")
		write(t, less, all)
		_, err := f.Open(ctx, dataset.Options{Dir: less})
		wantError(t, err, "svhn: ", filepath.Join(less, "extra_32x32.mat"))
		wantMissing(t, err, "svhn", "the files that are missing")
		_, err = dataset.Open(ctx, dataset.Options{Name: "svhn"})
		wantError(t, err, "svhn: ", "no data folder is named")
		wantMissing(t, err, "svhn", "")
		_, err = dataset.Open(ctx, dataset.Options{Name: "svhn", Dir: t.TempDir()})
		wantError(t, err, "found no train_32x32.mat in")
		wantMissing(t, err, "svhn", "")
	})

	t.Run("the official number of pictures is checked", func(t *testing.T) {
		t.Parallel()
		_, err := dataset.Open(ctx, dataset.Options{Name: "svhn", Dir: dir})
		wantError(t, err, "test_32x32.mat", "[32 32 3 20], want [32 32 3 26032]")
	})
}

func TestGetSVHN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	all := svhnFiles()
	f := dataset.SmallSVHN(50, 40, 20, 2, 1)
	f.Expect(func(name string) (string, int64) { return sumOf(all[name]), int64(len(all[name])) })
	// mirror serves the files; answer is as of serve.
	mirror := func(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int) bool) *server {
		return serve(t, nil, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if answer == nil || !answer(w, r, n) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(all[filepath.Base(r.URL.Path)]))
			}
			return true
		})
	}

	t.Run("the three files are downloaded, and a second call needs no server", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "data")
		s := mirror(t, nil)
		var done, total int64
		var notes []string
		o := dataset.GetOptions{Dir: dir, URL: s.URL + "/housenumbers",
			Progress: func(d, n int64) {
				if d < done {
					t.Errorf("the progress goes from %d back to %d", done, d)
				}
				done, total = d, n
			},
			Note: func(line string) { notes = append(notes, line) },
		}
		if err := f.Get(ctx, o); err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for _, b := range all {
			bytes += int64(len(b))
		}
		if done != bytes || total != bytes {
			t.Errorf("the progress ended at %d of %d, want %d", done, total, bytes)
		}
		if s, err := f.Open(ctx, dataset.Options{Dir: dir}); err != nil || len(s.Unofficial) > 0 {
			t.Errorf("%q, %v", s.Unofficial, err)
		}
		others := f
		others.Expect(func(string) (string, int64) { return "other", 1 })
		if s, err := others.Open(ctx, dataset.Options{Dir: dir}); err != nil || len(s.Unofficial) != 3 {
			t.Errorf("%q, %v", s.Unofficial, err)
		}
		if list, err := os.ReadDir(filepath.Join(dir, "svhn")); err != nil || len(list) != 3 {
			t.Errorf("the folder has %v, %v", list, err)
		}
		s.wantRanges(t, "", "", "")
		notes = nil
		if err := f.Get(ctx, o); err != nil {
			t.Fatal(err)
		}
		s.wantRanges(t, "", "", "")
		if len(notes) != 1 || !strings.Contains(notes[0], "svhn is already in "+filepath.Join(dir, "svhn")) {
			t.Errorf("the notes are %q", notes)
		}
	})
}

func TestGetSVHNContinues(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	all := svhnFiles()
	f := dataset.SmallSVHN(50, 40, 20, 2, 1)
	f.Expect(func(name string) (string, int64) { return sumOf(all[name]), int64(len(all[name])) })
	// mirror serves the files; answer is as of serve.
	mirror := func(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int) bool) *server {
		return serve(t, nil, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if answer == nil || !answer(w, r, n) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(all[filepath.Base(r.URL.Path)]))
			}
			return true
		})
	}

	t.Run("a broken download goes on where it was, and whole files are kept", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		extra := all["extra_32x32.mat"]
		bad := mirror(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if strings.HasSuffix(r.URL.Path, "extra_32x32.mat") {
				breakAfter(w, r, extra, max(0, 1500-500*n))
			}
			return false
		})
		err := f.Get(ctx, dataset.GetOptions{Dir: dir, URL: bad.URL, Pause: time.Millisecond})
		wantError(t, err, "svhn: ", "the connection broke", "500 B are kept, try again")
		var e *dataset.UnreachableError
		none := dataset.GetOptions{Dir: dir, URL: "http://127.0.0.1:1"} // nobody listens at port 1
		if err := f.Get(ctx, none); !errors.As(err, &e) || len(e.Files) != 2 || e.Folder != filepath.Join(dir, "svhn") ||
			e.Files[0].URL != "http://ufldl.stanford.edu/housenumbers/extra_32x32.mat" {
			t.Errorf("got %+v, %v, want extra and test", e, err)
		}
		good := mirror(t, nil)
		if err := f.Get(ctx, dataset.GetOptions{Dir: dir, URL: good.URL}); err != nil {
			t.Fatal(err)
		}
		good.wantRanges(t, "bytes=500-", "")
		if _, err := f.Open(ctx, dataset.Options{Dir: dir}); err != nil {
			t.Error(err)
		}
	})

	t.Run("a wrong checksum is an error, of a download and of a file that is there", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := mirror(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			b := bytes.Clone(all[filepath.Base(r.URL.Path)])
			b[200] ^= 1
			w.Write(b)
			return true
		})
		err := f.Get(ctx, dataset.GetOptions{Dir: dir, URL: s.URL})
		wantError(t, err, "svhn: "+s.URL+"/train_32x32.mat", "want "+sumOf(all["train_32x32.mat"]),
			"was removed, try again")
		write(t, filepath.Join(dir, "svhn"), map[string][]byte{"test_32x32.mat": []byte("mine")})
		err = f.Get(ctx, dataset.GetOptions{Dir: dir, URL: s.URL})
		wantError(t, err, "the 4 bytes of "+filepath.Join(dir, "svhn", "test_32x32.mat"),
			"remove the damaged file and try again")
	})
}
