package dataset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"igcsearch/trainer/dataset"
)

// waves is a smooth picture, different for each k.
func waves(w, h, k int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			v := func(c int) uint8 {
				return uint8(128 + 100*math.Sin(float64(k+c)+float64(x*(c+1))/9+float64(y)/float64(5+k%3)))
			}
			m.SetRGBA(x, y, color.RGBA{v(0), v(1), v(2), 255})
		}
	}
	return m
}

func jpegOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// writeFolder makes a folder of two classes, train pictures in each and two to
// test, of several sizes and kinds. It returns the names of the training files.
func writeFolder(t testing.TB, dir string, train int) []string {
	t.Helper()
	var names []string
	for class, name := range []string{"cat", "dog"} {
		files := map[string][]byte{"notes.txt": []byte("not a picture")}
		for i := range train {
			m := waves(30+7*i%20, 24+5*i%17, 10*class+i)
			file, b := fmt.Sprintf("%02d.JPEG", i), jpegOf(t, m)
			if i%3 == 2 {
				file, b = fmt.Sprintf("%02d.png", i), pngOf(t, m)
			}
			files[file] = b
			names = append(names, "train/"+name+"/"+file)
		}
		write(t, filepath.Join(dir, "train", name), files)
		write(t, filepath.Join(dir, "val", name), map[string][]byte{
			"a.jpg": jpegOf(t, waves(20, 20, 50+class)), "b.jpg": jpegOf(t, waves(9, 31, 60+class))})
	}
	return names
}

func openFolder(t testing.TB, o dataset.Options) *dataset.Set {
	t.Helper()
	s, err := folderOf(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func folderOf(o dataset.Options) (*dataset.Set, error) {
	o.Name = "folder"
	if o.Size == 0 {
		o.Size, o.Resize = 16, 18
	}
	return dataset.Open(context.Background(), o)
}

// epoch returns all values and labels of an epoch.
func epoch(t testing.TB, s *dataset.Set, split *dataset.Split, batch int, aug *dataset.Augmentation, seed,
	number uint64) (x, labels []float32) {
	t.Helper()
	b := s.Batches(context.Background(), split, dataset.Order(split.Len(), seed, number), batch, aug, seed, number)
	defer b.Close()
	for {
		one, l := make([]float32, (batch+15)/16*16*s.C*s.H*s.W), make([]float32, batch)
		n, err := b.Next(one, l)
		if err == io.EOF {
			return x, labels
		}
		if err != nil {
			t.Fatal(err)
		}
		x, labels = append(x, one...), append(labels, l[:n]...)
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()

	t.Run("the folders of train are the classes, and val is the test", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 6)
		s := openFolder(t, dataset.Options{Dir: dir})
		if s.Name != "folder" || s.C != 3 || s.H != 16 || s.W != 16 ||
			!slices.Equal(s.Classes, []string{"cat", "dog"}) || len(s.Unreadable) != 0 {
			t.Errorf("got %s of %d×%d×%d, classes %q, unreadable %q", s.Name, s.C, s.H, s.W, s.Classes, s.Unreadable)
		}
		if !slices.Equal(s.Train.Labels, []uint16{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}) ||
			!slices.Equal(s.Test.Labels, []uint16{0, 0, 1, 1}) {
			t.Errorf("the labels are %d and %d", s.Train.Labels, s.Test.Labels)
		}
		held := openFolder(t, dataset.Options{Dir: dir, Validation: 4, TrainPictures: 6, TestPictures: 2})
		if !slices.Equal(held.Validation.Labels, []uint16{0, 0, 1, 1}) || held.Train.Len() != 6 ||
			held.Test.Len() != 2 {
			t.Errorf("got %d + %d training and %d test pictures", held.Train.Len(), held.Validation.Len(),
				held.Test.Len())
		}
		if held.Sum == s.Sum {
			t.Error("other pictures have the same sum")
		}
	})

	t.Run("mean and standard deviation are those of the training pictures as they are tested", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 6)
		for _, o := range []dataset.Options{{Dir: dir}, {Dir: dir, Validation: 4}} {
			s := openFolder(t, o)
			x, _ := epoch(t, s, &s.Train, 1, nil, 1, 1)
			for c := range 3 {
				var sum, squares, n float64
				for i := 0; i < len(x); i += 16 { // lane 0 of (N, H, C, W, 16)
					if i/16/16%3 == c {
						sum, squares, n = sum+float64(x[i]), squares+float64(x[i])*float64(x[i]), n+1
					}
				}
				if math.Abs(sum/n) > 1e-5 || math.Abs(squares/n-1) > 1e-4 {
					t.Errorf("channel %d: normalised it has mean %g and variance %g, want 0 and 1", c, sum/n, squares/n)
				}
			}
		}
	})

	t.Run("other files are passed over and counted by kind", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 2)
		write(t, filepath.Join(dir, "train"), map[string][]byte{"list.csv": nil})
		write(t, filepath.Join(dir, "train", "dog"), map[string][]byte{"a.WebP": nil, "README": nil, "b\n.gif": nil,
			".DS_Store": nil})
		write(t, filepath.Join(dir, "train", "dog", "more", "deep"), map[string][]byte{"a.jpg": nil, ".hidden": nil})
		want := []dataset.LeftOut{
			{"train/cat/notes.txt", "its name does not end in .jpg, .jpeg or .png", ".txt"},
			{"train/dog/README", "its name does not end in .jpg, .jpeg or .png", "without an ending"},
			{"train/dog/a.WebP", "its name does not end in .jpg, .jpeg or .png", ".webp"},
			{"train/dog/more/deep/a.jpg", "it lies in folders below a class", "in folders below a class"},
			{"train/dog/notes.txt", "its name does not end in .jpg, .jpeg or .png", ".txt"},
			{"train/list.csv", "it lies beside the folders of the classes", "beside the folders of the classes"},
			{`"train/dog/b\n.gif"`, "its name does not end in .jpg, .jpeg or .png", ".gif"},
		}
		byName := func(a, b dataset.LeftOut) int {
			return strings.Compare(strings.Trim(a.Name, `"`), strings.Trim(b.Name, `"`))
		}
		slices.SortFunc(want, byName)
		s := openFolder(t, dataset.Options{Dir: dir})
		slices.SortFunc(s.Passed, byName)
		if !slices.Equal(s.Passed, want) {
			t.Errorf("passed over are %q, want %q", s.Passed, want)
		}
		found, err := dataset.Inspect(context.Background(), dir)
		slices.SortFunc(found.LeftOut, byName)
		if err != nil || !slices.Equal(found.LeftOut, want) || found.Classes != 2 || found.Train != 4 || found.Test != 4 {
			t.Errorf("found %+v, %v", found, err)
		}
	})

	t.Run("pictures that cannot be read are left out and named", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 4)
		whole := jpegOf(t, waves(40, 30, 1))
		write(t, filepath.Join(dir, "train", "cat"), map[string][]byte{
			"half.jpg": whole[:len(whole)/2], "text.jpg": []byte("no picture"), "empty.png": nil,
			"long.png": pngOf(t, image.NewGray(image.Rect(0, 0, 100, 4))),
		})
		write(t, filepath.Join(dir, "val", "dog"), map[string][]byte{"half.jpg": whole[:40]})
		if err := os.Symlink("nowhere", filepath.Join(dir, "train", "dog", "link.jpg")); err != nil {
			t.Fatal(err)
		}
		want := []string{"train/cat/empty.png: it is empty", "train/cat/half.jpg: decode: unexpected EOF",
			"train/cat/long.png: it has 100×4 pixels, want sides that differ by a factor of 20 at most",
			"train/cat/text.jpg: it is neither JPEG nor PNG", "train/dog/link.jpg: stat: no such file or directory",
			"val/dog/half.jpg: decode: unexpected EOF"}
		for range 2 { // the second time from the index
			s := openFolder(t, dataset.Options{Dir: dir})
			if got := leftOut(s.Unreadable); !slices.Equal(got, want) {
				t.Errorf("left out are %q, want %q", got, want)
			}
			if s.Train.Len() != 8 || s.Test.Len() != 4 {
				t.Errorf("got %d and %d pictures", s.Train.Len(), s.Test.Len())
			}
		}
	})
}

func TestFolderFiles(t *testing.T) {
	t.Parallel()

	t.Run("JPEG and PNG of every colour model are read, whatever their extension", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 1)
		m := waves(33, 21, 3)
		grey, deep := image.NewGray(m.Rect), image.NewRGBA64(m.Rect)
		clear, indexed := image.NewNRGBA(m.Rect),
			image.NewPaletted(m.Rect, color.Palette{color.Black, color.White, color.RGBA{9, 99, 199, 255}})
		for y := range 21 {
			for x := range 33 {
				for _, to := range []interface{ Set(x, y int, c color.Color) }{grey, deep, clear, indexed} {
					to.Set(x, y, m.At(x, y))
				}
			}
		}
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			t.Fatal(err)
		}
		// image/jpeg writes no CMYK; Go's own tests have a picture.
		cmyk, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src", "image", "testdata",
			"video-001.cmyk.jpeg"))
		if err != nil {
			t.Skip(err)
		}
		write(t, filepath.Join(dir, "train", "dog"), map[string][]byte{
			"grey.jpg": jpegOf(t, grey), "deep.png": pngOf(t, deep), "clear.png": pngOf(t, clear),
			"indexed.png": pngOf(t, indexed), "really.jpg": pngOf(t, m), "cmyk.jpg": cmyk,
		})
		s := openFolder(t, dataset.Options{Dir: dir})
		if len(s.Unreadable) != 0 || s.Train.Len() != 8 {
			t.Errorf("got %d pictures, unreadable %q", s.Train.Len(), s.Unreadable)
		}
		epoch(t, s, &s.Train, 3, &dataset.Augmentation{ResizeMax: 30, Mirror: true}, 1, 1)
	})

	for _, c := range []struct {
		what   string
		change func(dir string) error
		want   []string
	}{
		{"a folder without train", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "train")) },
			[]string{"there is no folder train in ", "(or val)"}},
		{"a folder without test and val", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "val")) },
			[]string{"there is no folder test or val in "}},
		{"a folder with test and val", func(dir string) error { return os.Mkdir(filepath.Join(dir, "test"), 0o777) },
			[]string{"has a folder test and a folder val: want one of them"}},
		{"one class", func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "train", "dog")),
				os.RemoveAll(filepath.Join(dir, "val", "dog")))
		}, []string{"has 1 folders: want one for each class, 2 to 65536"}},
		{"a class without pictures", func(dir string) error {
			return os.Mkdir(filepath.Join(dir, "train", "cow"),
				0o777)
		}, []string{"cow has no pictures: want .jpg, .jpeg or .png files"}},
		{"a class that only the test has",
			func(dir string) error { return os.Mkdir(filepath.Join(dir, "val", "cow"), 0o777) },
			[]string{"cow is a class that ", "want the same names"}},
	} {
		t.Run(c.what+" is an error that says what to do", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeFolder(t, dir, 1)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := folderOf(dataset.Options{Dir: dir})
			wantError(t, err, append(c.want, "folder: ", dir)...)
		})
	}
}

func TestFolderErrors(t *testing.T) {
	t.Parallel()

	t.Run("no folder and pictures that are all damaged are errors", func(t *testing.T) {
		t.Parallel()
		_, err := folderOf(dataset.Options{})
		wantError(t, err, "folder: ", "no data folder is named: want one with folders train and test")
		wantMissing(t, err, "", "")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error("the error does not wrap fs.ErrNotExist")
		}
		dir := t.TempDir()
		for _, place := range []string{"train/cat", "train/dog", "test/dog"} {
			write(t, filepath.Join(dir, place), map[string][]byte{"a.jpg": []byte("x")})
		}
		_, err = folderOf(dataset.Options{Dir: dir})
		wantError(t, err, "no picture like "+filepath.Join(dir, "train", "cat", "a.jpg")+
			" can be read: it is neither JPEG nor PNG: class cat has none to train on")
	})

	t.Run("the layouts of HuggingFace are named", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, filepath.Join(dir, "data"), map[string][]byte{"train-00000-of-00001.parquet": nil})
		_, err := folderOf(dataset.Options{Dir: dir})
		wantError(t, err, "there is no folder train in "+dir, filepath.Join(dir, "data", "train-00000-of-00001.parquet")+
			" is a file for HuggingFace's datasets (parquet), which cannot be read: write its pictures as PNG files")
		wantMissing(t, err, "", "")
		writeFolder(t, dir, 2)
		if err := os.Rename(filepath.Join(dir, "val"), filepath.Join(dir, "validation")); err != nil {
			t.Fatal(err)
		}
		_, err = folderOf(dataset.Options{Dir: dir})
		wantError(t, err, "there is no folder test or val in "+dir, "; call "+filepath.Join(dir, "validation")+" val")
		wantMissing(t, err, "", "")
	})

	t.Run("a class without a training picture that can be read is an error", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 2)
		write(t, filepath.Join(dir, "train", "cow"), map[string][]byte{"only.jpg": nil})
		_, err := folderOf(dataset.Options{Dir: dir})
		wantError(t, err, "no picture like "+filepath.Join(dir, "train", "cow", "only.jpg")+
			" can be read: it is empty: class cow has none to train on")
		found, err := dataset.Inspect(context.Background(), dir)
		wantError(t, err, "class cow has none to train on")
		if found.Classes != 3 || found.Train != 4 || found.Test != 4 {
			t.Errorf("found %+v", found)
		}
	})

	t.Run("a cancelled context ends the reading", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 2)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := dataset.Open(ctx, dataset.Options{Name: "folder", Dir: dir, Size: 16, Resize: 18})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

func TestFolderIndex(t *testing.T) {
	t.Parallel()

	t.Run("a file that takes the place of another with its size and time is read again", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		names := writeFolder(t, dir, 3)
		first := openFolder(t, dataset.Options{Dir: dir})
		rest(t, dir)
		swap(t, filepath.Join(dir, names[0]))
		again := openFolder(t, dataset.Options{Dir: dir})
		if want := []string{names[0] + ": it is neither JPEG nor PNG"}; !slices.Equal(leftOut(again.Unreadable), want) ||
			again.Sum == first.Sum {
			t.Errorf("left out are %q, want %q", leftOut(again.Unreadable), want)
		}
	})

	t.Run("a file that rests is not read again, and of one that only moved the view is known", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		names := writeFolder(t, dir, 3)
		first := openFolder(t, dataset.Options{Dir: dir})
		rest(t, dir)
		alter(t, dir, names[0], func(p map[string]any) { p["sum"] = "other" })
		if s := openFolder(t, dataset.Options{Dir: dir}); s.Sum == first.Sum {
			t.Error("the checksum is not from the index")
		}
		alter(t, dir, names[0], func(p map[string]any) { p["inode"] = 1 })
		if s := openFolder(t, dataset.Options{Dir: dir}); s.Sum != first.Sum {
			t.Error("of another inode the checksum is from the index")
		}
		rest(t, dir)
		alter(t, dir, names[0], func(p map[string]any) {
			p["changed"] = 1
			p["views"].([]any)[0].(map[string]any)["sum"] = []int{0, 0, 0}
		})
		if s := openFolder(t, dataset.Options{Dir: dir}); s.Mean == first.Mean || s.Sum != first.Sum {
			t.Error("a picture with the same bytes was decoded again")
		}
	})

	t.Run("a file that changed just before it was read is read again", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		names := writeFolder(t, dir, 3)
		first := openFolder(t, dataset.Options{Dir: dir})
		alter(t, dir, names[0], func(p map[string]any) { p["sum"], p["looked"] = "other", p["changed"] })
		if s := openFolder(t, dataset.Options{Dir: dir}); s.Sum != first.Sum {
			t.Error("the checksum is from the index")
		}
	})

	t.Run("another size is learnt beside the first", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		names := writeFolder(t, dir, 3)
		small, large := dataset.Options{Dir: dir, Size: 8, Resize: 9}, dataset.Options{Dir: dir, Size: 16, Resize: 30}
		a, b := openFolder(t, small), openFolder(t, large)
		rest(t, dir)
		for _, name := range names {
			alter(t, dir, name, func(p map[string]any) {
				if n := len(p["views"].([]any)); n != 2 {
					t.Errorf("%s has %d views, want 2", name, n)
				}
				p["sum"] = "other"
			})
		}
		if c, d := openFolder(t, small), openFolder(t, large); c.Mean != a.Mean || d.Mean != b.Mean || c.Sum == a.Sum {
			t.Error("the index lost one of them")
		}
	})

	t.Run("an interrupt loses nothing of what was learnt before", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		names := writeFolder(t, dir, 3)
		want := openFolder(t, dataset.Options{Dir: dir})
		rest(t, dir)
		alter(t, dir, names[1], func(p map[string]any) { p["changed"] = 1 }) // it must be read again
		// A new picture makes the next call learn something, which is stopped.
		write(t, filepath.Join(dir, "train", "cat"), map[string][]byte{"new.png": pngOf(t, waves(9, 9, 9))})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := dataset.Open(ctx, dataset.Options{Name: "folder", Dir: dir, Size: 16, Resize: 18}); !errors.Is(err,
			context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		for _, name := range names {
			alter(t, dir, name, func(p map[string]any) {}) // it fails if the index does not have the picture
		}
		if s := openFolder(t, dataset.Options{Dir: dir}); len(s.Unreadable) != 0 ||
			s.Train.Len() != want.Train.Len()+1 {
			t.Errorf("got %d pictures, unreadable %q", s.Train.Len(), leftOut(s.Unreadable))
		}
	})

	t.Run("a damaged index is as none", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 2)
		want := openFolder(t, dataset.Options{Dir: dir}).Sum
		for _, text := range []string{"", "{", `{"version":2}`,
			`{"version":1,"pictures":[null,{"name":"train/cat/00.JPEG"}]}`} {
			write(t, dir, map[string][]byte{".igcsearch-index.json": []byte(text)})
			if got := openFolder(t, dataset.Options{Dir: dir}).Sum; got != want {
				t.Errorf("with the index %q the sum is another", text)
			}
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 3 {
			t.Errorf("left behind are %v, %v", list, err)
		}
	})
}

func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()

	t.Run("a folder that must not be written to is read all the same", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFolder(t, dir, 2)
		// A folder in place of the index: that fails for root too.
		if err := os.MkdirAll(filepath.Join(dir, ".igcsearch-index.json", "x"), 0o777); err != nil {
			t.Fatal(err)
		}
		if s := openFolder(t, dataset.Options{Dir: dir}); s.Train.Len() != 4 {
			t.Errorf("got %d pictures", s.Train.Len())
		}
	})
}

// rest makes all files of an index look as if they had not changed for a long time
// before they were read.
func rest(t *testing.T, dir string) {
	t.Helper()
	alter(t, dir, "", func(p map[string]any) { p["looked"] = math.MaxInt64 })
}

// alter changes what the index says of a picture, or of all for "".
func alter(t *testing.T, dir, name string, change func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, ".igcsearch-index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // times have more digits than a float64
	if err := d.Decode(&index); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range index["pictures"].([]any) {
		if p := p.(map[string]any); name == "" || p["name"] == name {
			found = true
			change(p)
		}
	}
	if text, err = json.Marshal(index); err != nil || !found {
		t.Fatalf("picture %q is in the index: %v, %v", name, found, err)
	}
	write(t, dir, map[string][]byte{".igcsearch-index.json": text})
}

// leftOut lists files with their reasons.
func leftOut(files []dataset.LeftOut) (list []string) {
	for _, f := range files {
		list = append(list, f.Name+": "+f.Reason)
	}
	return list
}

// swap replaces a picture by text of the same size and time of modification,
// as cp -p does.
func swap(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, info.Size()), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func TestFolderBatches(t *testing.T) {
	// Not parallel: it counts goroutines.
	dir := t.TempDir()
	writeFolder(t, dir, 10)
	aug := &dataset.Augmentation{ResizeMax: 34, Mirror: true}

	t.Run("the number of decoders changes no bit", func(t *testing.T) {
		var want []float32
		for _, n := range []int{1, 4} {
			s := openFolder(t, dataset.Options{Dir: dir})
			s.Decoders(n)
			got, labels := epoch(t, s, &s.Train, 3, aug, 7, 1)
			for i, p := range dataset.Order(20, 7, 1) {
				if labels[i] != float32(s.Train.Labels[p]) {
					t.Errorf("picture %d has the label %g", p, labels[i])
				}
			}
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Error("four decoders give other values than one")
			}
		}
	})

	t.Run("a picture depends on seed and epoch, and not on its place in a batch", func(t *testing.T) {
		s := openFolder(t, dataset.Options{Dir: dir})
		look := func(order []int, place int, seed, epoch uint64) []float32 {
			b := s.Batches(context.Background(), &s.Train, order, len(order), aug, seed, epoch)
			defer b.Close()
			x, labels := make([]float32, 2*16*3*16*16), make([]float32, len(order))
			if _, err := b.Next(x, labels); err != nil {
				t.Fatal(err)
			}
			var lane []float32
			for i := place/16*16*3*16*16 + place%16; i < (place/16+1)*16*3*16*16; i += 16 {
				lane = append(lane, x[i])
			}
			return lane
		}
		many := dataset.Order(20, 3, 3)
		one := look([]int{many[17]}, 0, 5, 2)
		if !slices.Equal(one, look(many, 17, 5, 2)) {
			t.Error("it differs between two batches")
		}
		if slices.Equal(one, look([]int{many[17]}, 0, 5, 3)) || slices.Equal(one, look([]int{many[17]}, 0, 6, 2)) {
			t.Error("another epoch or seed shows the same")
		}
	})

	t.Run("Close in the middle and a cancelled context end all goroutines at once", func(t *testing.T) {
		s := openFolder(t, dataset.Options{Dir: dir})
		before := runtime.NumGoroutine()
		x, labels := make([]float32, 16*3*16*16), make([]float32, 2)
		for range 20 {
			ctx, cancel := context.WithCancel(context.Background())
			b := s.Batches(ctx, &s.Train, nil, 2, aug, 1, 1)
			if _, err := b.Next(x, labels); err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := b.Next(x, labels); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want context.Canceled", err)
			}
			b.Close()
			b = s.Batches(context.Background(), &s.Train, nil, 2, aug, 1, 1)
			b.Close()
			b.Close()
		}
		// A goroutine that was waited for may still have its last steps to do. One that stays is seen in the list of
		// goroutines that the limit of go test prints.
		for runtime.NumGoroutine() > before {
			time.Sleep(time.Millisecond)
		}
	})
}

func TestFolderBatchesOfALostPicture(t *testing.T) {
	// Not parallel: it counts goroutines.
	dir := t.TempDir()
	names := writeFolder(t, dir, 10)

	t.Run("a picture that is gone since is an error that names it", func(t *testing.T) {
		s := openFolder(t, dataset.Options{Dir: dir})
		if err := os.Remove(filepath.Join(dir, names[5])); err != nil {
			t.Fatal(err)
		}
		b := s.Batches(context.Background(), &s.Train, nil, 4, nil, 1, 1)
		defer b.Close()
		x, labels := make([]float32, 16*3*16*16), make([]float32, 4)
		if _, err := b.Next(x, labels); err != nil {
			t.Fatal(err)
		}
		_, err := b.Next(x, labels)
		wantError(t, err, "folder: ", filepath.Join(dir, names[5]))
	})
}

func TestRescale(t *testing.T) {
	t.Parallel()
	// ramp rises along x, the same in all rows.
	ramp := func(w, h int) *image.Gray {
		m := image.NewGray(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				m.SetGray(x, y, color.Gray{uint8(255 * x / (w - 1))})
			}
		}
		return m
	}

	t.Run("without a change of size the centre is cut out as it is", func(t *testing.T) {
		t.Parallel()
		m := waves(20, 12, 1)
		got := dataset.Rescale(m, 8, 12, 0, 0)
		for c := range 3 {
			for y := range 8 {
				for x := range 8 {
					if want := m.Pix[m.PixOffset(x+6, y+2)+c]; got[(c*8+y)*8+x] != want {
						t.Fatalf("channel %d, row %d, column %d is %d, want %d", c, y, x, got[(c*8+y)*8+x], want)
					}
				}
			}
		}
	})

	t.Run("stripes of one pixel become grey when they shrink", func(t *testing.T) {
		t.Parallel()
		m := image.NewGray(image.Rect(0, 0, 128, 128))
		for i := range m.Pix {
			m.Pix[i] = uint8(i % 2 * 255)
		}
		for i, v := range dataset.Rescale(m, 16, 16, 0, 0) {
			if x := i % 16; x > 0 && x < 15 && (v < 120 || v > 135) {
				t.Fatalf("value %d is %d, want about 127: the average of the stripes", i, v)
			}
		}
	})

	t.Run("a picture smaller than the size grows, by straight lines", func(t *testing.T) {
		t.Parallel()
		got := dataset.Rescale(ramp(5, 5), 20, 20, 0, 0)
		for x := range 20 {
			// The centre of pixel x lies at (x+½)/4 − ½ of the small picture.
			want := 255 * min(max((float64(x)+0.5)/4-0.5, 0), 4) / 4
			if math.Abs(float64(got[x])-want) > 2 {
				t.Errorf("column %d is %d, want %.0f", x, got[x], want)
			}
		}
	})

	t.Run("length, part and mirror are random over all that they may be", func(t *testing.T) {
		t.Parallel()
		m := ramp(64, 64)
		rising, least, most := 0, 255, 0
		for seed := range uint64(400) {
			row := dataset.Rescale(m, 16, 16, 32, rand.New(rand.NewPCG(seed, 1)).Uint64())[:16]
			if row[15] > row[0] {
				rising++
			}
			span := int(slices.Max(row)) - int(slices.Min(row))
			least, most = min(least, span), max(most, span)
		}
		// Half of 400, ± five standard deviations.
		if rising < 150 || rising > 250 {
			t.Errorf("%d of 400 pictures are not mirrored, want about 200", rising)
		}
		// At length 16 all of the ramp is seen, at 32 half of it.
		if most < 230 || least > 135 || least < 100 {
			t.Errorf("pictures show %d to %d grey levels of the ramp, want about 120 to 240", least, most)
		}
	})
}

// FuzzFolder: no file makes the reader of pictures panic; it is read or named.
func FuzzFolder(f *testing.F) {
	whole := jpegOf(f, waves(20, 10, 1))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(pngOf(f, waves(5, 9, 2)))
	f.Add([]byte("\x89PNG\r\n\x1a\n"))
	f.Add([]byte{})
	good := jpegOf(f, waves(8, 8, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		for _, place := range []string{"train/a", "train/b", "test/a"} {
			write(t, filepath.Join(dir, place), map[string][]byte{"good.jpg": good})
		}
		write(t, filepath.Join(dir, "train/a"), map[string][]byte{"some.png": b})
		s := openFolder(t, dataset.Options{Dir: dir, Size: 4, Resize: 5})
		if got := s.Train.Len() + len(s.Unreadable); got != 3 {
			t.Errorf("%d pictures are read or named, want 3: %s", got, strings.Join(leftOut(s.Unreadable), ", "))
		}
	})
}
