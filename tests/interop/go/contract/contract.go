// Package contract is what the Go drivers share: arguments, the JSON lines that they print, how they end.
//
// A driver is started as `<driver> VERB BOOTSTRAP key=value...`. It prints JSON lines and ends with 0 if it did all
// that the verb says, with 1 and a sentence on stderr if not, with 3 if its library cannot do it on any broker.
package contract

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Eventually gives a broker this long to show what it has acknowledged.
const patience = 10 * time.Second

// Unsupported is what a library cannot do on any broker, and why.
type Unsupported string

func (reason Unsupported) Error() string { return string(reason) }

// Arguments are those of one call.
type Arguments struct {
	Bootstrap string
	values    map[string]string
}

// Text is a value that has to be there.
func (arguments Arguments) Text(name string) string {
	value, found := arguments.values[name]
	if !found {
		fail(fmt.Errorf("%s= is missing", name))
	}
	return value
}

// TextOr is a value that may be absent.
func (arguments Arguments) TextOr(name, otherwise string) string {
	if value, found := arguments.values[name]; found {
		return value
	}
	return otherwise
}

// NumberOr is a number that may be absent.
func (arguments Arguments) NumberOr(name string, otherwise int64) int64 {
	if _, found := arguments.values[name]; !found {
		return otherwise
	}
	return arguments.Number(name)
}

// Number is a number that has to be there.
func (arguments Arguments) Number(name string) int64 {
	number, err := strconv.ParseInt(arguments.Text(name), 10, 64)
	if err != nil {
		fail(fmt.Errorf("%s=: %w", name, err))
	}
	return number
}

// Start is where a consumer begins: at the beginning, at an offset, at a time in milliseconds.
type Start struct {
	Beginning bool
	Offset    int64
	TimeMs    *int64
}

// From reads from=beginning|offset:K|time:MS.
func (arguments Arguments) From() Start {
	kind, rest, _ := strings.Cut(arguments.Text("from"), ":")
	if kind == "beginning" {
		return Start{Beginning: true}
	}
	number, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		fail(fmt.Errorf("from=: %w", err))
	}
	if kind == "time" {
		return Start{TimeMs: &number}
	}
	return Start{Offset: number}
}

// Header is a name and a value that may be null, in JSON a pair.
type Header struct {
	Name  string
	Value []byte
}

// MarshalJSON writes the pair.
func (header Header) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{header.Name, header.Value})
}

// UnmarshalJSON reads the pair.
func (header *Header) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&header.Name, &header.Value})
}

// Record is one record. Null keys and values are nil; what is empty is not.
type Record struct {
	Partition int32    `json:"partition"`
	Offset    *int64   `json:"offset,omitempty"`
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []Header `json:"headers"`
	Timestamp int64    `json:"timestamp"`
}

// Records reads a file of them.
func Records(path string) ([]Record, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var records []Record
	for decoder := json.NewDecoder(bufio.NewReader(file)); ; {
		var record Record
		if err := decoder.Decode(&record); errors.Is(err, io.EOF) {
			return records, nil
		} else if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
}

// Largest is the size of the largest of them with room for what a batch adds. Libraries refuse to send what is larger
// than their limit; the drivers raise it where a file asks for more, since it is the broker that is to decide.
func Largest(records []Record) int {
	largest := 0
	for _, record := range records {
		size := len(record.Key) + len(record.Value) + 1024
		for _, header := range record.Headers {
			size += len(header.Name) + len(header.Value) + 16
		}
		largest = max(largest, size)
	}
	return largest
}

var output sync.Mutex

// Print writes a line at once.
func Print(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		fail(err)
	}
	output.Lock()
	defer output.Unlock()
	if _, err := os.Stdout.Write(append(text, '\n')); err != nil {
		fail(err)
	}
}

// Step is one of the steps of admin.
type Step struct {
	Name string
	Run  func() error
}

// Steps runs them in order. The first that fails is the error; what the library cannot do is printed.
func Steps(steps []Step) error {
	for _, step := range steps {
		err := step.Run()
		var unsupported Unsupported
		if errors.As(err, &unsupported) {
			Print(map[string]any{"step": step.Name, "unsupported": string(unsupported)})
		} else if err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		} else {
			Print(map[string]any{"step": step.Name, "ok": true})
		}
	}
	return nil
}

// Eventually repeats a check of what a broker has acknowledged but may not show yet.
func Eventually(check func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if err := check(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// AtEndOfInput calls when stdin ends.
func AtEndOfInput(call func()) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		call()
	}()
}

// Version is the version of a module that the driver is built with.
func Version(module string) string {
	build, _ := debug.ReadBuildInfo()
	for _, dependency := range build.Deps {
		if dependency.Path == module {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return "unknown"
}

// Main runs the verb that the arguments of the process name.
func Main(verbs map[string]func(Arguments) error) {
	if len(os.Args) < 3 {
		fail(errors.New("usage: VERB BOOTSTRAP key=value..."))
	}
	verb, found := verbs[os.Args[1]]
	if !found {
		fail(fmt.Errorf("there is no verb %s", os.Args[1]))
	}
	arguments := Arguments{Bootstrap: os.Args[2], values: map[string]string{}}
	for _, argument := range os.Args[3:] {
		name, value, _ := strings.Cut(argument, "=")
		arguments.values[name] = value
	}
	err := verb(arguments)
	var unsupported Unsupported
	if errors.As(err, &unsupported) {
		Print(map[string]string{"unsupported": string(unsupported)})
		os.Exit(3)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
