package dataset

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"

	"igcsearch/search/regular"
)

// pythonVersion is the Python version of a set of CIFAR, whose files are pickles of dictionaries. torchvision and others
// keep it.
type pythonVersion struct {
	folder  string // of the files, in the official archive
	archive string // the name of the official archive
	md5     string // of the archive
	train   []string
	test    string
	meta    string   // the file with the names of the classes
	names   string   // the key of these names
	labels  []string // the keys of the labels, in the order of a record's label bytes
	// sums are the MD5 of the published files, as torchvision lists them.
	sums map[string]string
}

var cifar10Python = pythonVersion{
	folder: "cifar-10-batches-py", archive: "cifar-10-python.tar.gz", md5: "c58f30108f718f92721af3b95e74349a",
	train: []string{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"},
	test:  "test_batch", meta: "batches.meta", names: "label_names", labels: []string{"labels"},
	sums: map[string]string{
		"data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
		"data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
		"data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
	},
}

var cifar100Python = pythonVersion{
	folder: "cifar-100-python", archive: "cifar-100-python.tar.gz", md5: "eb9058c3a382ffc7106e4002c42a8d85",
	train: []string{"train"},
	test:  "test", meta: "meta", names: "fine_label_names", labels: []string{"coarse_labels", "fine_labels"},
	sums: map[string]string{
		"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
	},
}

// maxPickleBytes bounds a file with so many pictures. Beside its pixels a picture has labels and the name of its file, and
// Python 3 writes a byte from 128 on as two where Python 2 is to read it.
func maxPickleBytes(records int) int64 { return int64(records)*(2*cifarPixels+512) + maxNamesBytes }

// readPython returns all pictures of the Python version of the set in dir.
func (f format) readPython(ctx context.Context, dir string) (all cifarFiles, err error) {
	fail := func(err error) (cifarFiles, error) {
		return cifarFiles{}, fmt.Errorf("%s: %w", f.name, missing(err, f.get, "a whole set"))
	}
	if all.classes, err = f.pythonNames(filepath.Join(dir, f.python.meta)); err != nil {
		return fail(err)
	}
	binary := append(slices.Clone(f.train), f.test)
	for i, name := range append(slices.Clone(f.python.train), f.python.test) {
		records, into := f.trainRecords, &all.train
		if name == f.python.test {
			records, into = f.testRecords, &all.test
		}
		if ctx.Err() != nil {
			return fail(ctx.Err())
		}
		sum, content, err := f.readPickle(filepath.Join(dir, name), records, into)
		if err != nil {
			return fail(err)
		}
		// The file itself is the published one, or the pictures in it are those of the published binary file.
		if want, known := f.sums[binary[i]]; known && content != want && sum != f.python.sums[name] {
			all.unofficial = append(all.unofficial, name)
		}
	}
	return all, nil
}

// readPickle appends the pictures of a file. It returns the MD5 of the file, and the SHA-256 of a binary file with the
// same pictures.
func (f format) readPickle(path string, records int, into *Split) (sum, content string, err error) {
	file, err := regular.Read(path, maxPickleBytes(records))
	if err != nil {
		return "", "", err
	}
	dict, err := pickledDict(path, file, 16*records+1000)
	if err != nil {
		return "", "", err
	}
	data, ok := dict["data"].(*pickleArray)
	if !ok || !slices.Equal(data.shape, []int{records, cifarPixels}) {
		shape := "none"
		if ok {
			shape = fmt.Sprint(data.shape)
		}
		return "", "", fmt.Errorf("%s: its array \"data\" has the shape %s, want %v", path, shape, []int{records, cifarPixels})
	}
	labels := make([]byte, records*len(f.labels))
	for j, key := range f.python.labels {
		list, ok := dict[key].(*pickleList)
		if !ok || len(list.of) != records {
			return "", "", fmt.Errorf("%s: it has no list %q with %d labels", path, key, records)
		}
		for i, label := range list.of {
			n, ok := label.(int64)
			if !ok {
				return "", "", fmt.Errorf("%s: %q has no number at %d, want a label from 0 to %d", path, key, i, f.labels[j]-1)
			}
			if n < 0 || n >= int64(f.labels[j]) {
				return "", "", fmt.Errorf("%s: %q has %d at %d, want a label from 0 to %d", path, key, n, i, f.labels[j]-1)
			}
			labels[i*len(f.labels)+j] = byte(n)
		}
	}
	h := sha256.New()
	for i := range records {
		record := labels[i*len(f.labels):][:len(f.labels)]
		h.Write(record)
		h.Write(data.data[i*cifarPixels:][:cifarPixels])
		into.Labels = append(into.Labels, uint16(record[f.label]))
	}
	if into.Pixels == nil {
		into.Pixels = data.data
	} else {
		into.Pixels = append(into.Pixels, data.data...)
	}
	whole := md5.Sum(file)
	return hex.EncodeToString(whole[:]), hex.EncodeToString(h.Sum(nil)), nil
}

// pythonNames reads the names of the classes.
func (f format) pythonNames(path string) ([]string, error) {
	file, err := regular.Read(path, maxNamesBytes)
	if err != nil {
		return nil, err
	}
	dict, err := pickledDict(path, file, 10000)
	if err != nil {
		return nil, err
	}
	list, ok := dict[f.python.names].(*pickleList)
	if !ok || len(list.of) != f.classes() {
		return nil, fmt.Errorf("%s: it has no list %q with %d names", path, f.python.names, f.classes())
	}
	var names []string
	for i, v := range list.of {
		name, ok := v.(pickleText)
		if !ok || len(name) == 0 {
			return nil, fmt.Errorf("%s: %q has no name for class %d", path, f.python.names, i)
		}
		names = append(names, string(name))
	}
	return names, nil
}

func pickledDict(path string, file []byte, most int) (map[string]any, error) {
	v, err := unpickle(file, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	dict, ok := v.(*pickleDict)
	if !ok {
		return nil, fmt.Errorf("%s: it has no dictionary", path)
	}
	return dict.of, nil
}
