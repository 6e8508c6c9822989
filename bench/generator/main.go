// Command generator orders certificates from an ACME directory and says how long each took.
//
// It is told what to do on standard input, one JSON object a line, and answers each with one
// JSON object a line.  Accounts and connections outlive a line, so that a caller may warm a
// server up first and read the server's clocks between two lines.  It listens on loopback only:
// an http-01 responder and a name server to which every name is 127.0.0.1.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// settings are the command line.
type settings struct {
	directory   string
	authorities string
	responder   string
	nameServer  string
	zone        string
	bindingID   string
	bindingKey  string
}

func main() {
	var s settings
	flag.StringVar(&s.directory, "directory", "", "URL of the ACME directory; without one, only answer challenges")
	flag.StringVar(&s.authorities, "ca", "", "PEM file of the roots that the server's certificate leads to")
	flag.StringVar(&s.responder, "http", "", "loopback address at which http-01 is answered")
	flag.StringVar(&s.nameServer, "dns", "", "loopback UDP address at which every name is 127.0.0.1")
	flag.StringVar(&s.zone, "zone", "bench.example.test", "zone below which names are made up")
	flag.StringVar(&s.bindingID, "eab-kid", "", "key id of the external account binding")
	flag.StringVar(&s.bindingKey, "eab-key", "", "its MAC key, base64url")
	flag.Parse()
	if err := run(s, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "generator: error:", err)
		os.Exit(1)
	}
}

func run(s settings, commands io.Reader, answers io.Writer) error {
	responder := newResponder()
	if s.responder != "" {
		if err := responder.serveHTTP(s.responder); err != nil {
			return err
		}
	}
	if s.nameServer != "" {
		if err := serveNames(s.nameServer); err != nil {
			return err
		}
	}
	var crew *crew
	if s.directory != "" {
		transport, err := trusting(s.authorities)
		if err != nil {
			return err
		}
		crew, err = newCrew(s, &http.Client{Transport: transport, Timeout: requestTime}, responder)
		if err != nil {
			return err
		}
	}
	encoder := json.NewEncoder(answers)
	if err := encoder.Encode(map[string]bool{"ready": true}); err != nil {
		return err
	}
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		var task task
		if err := json.Unmarshal(lines.Bytes(), &task); err != nil {
			return fmt.Errorf("command: %w", err)
		}
		if crew == nil {
			return fmt.Errorf("there is no directory to order from")
		}
		result, err := crew.work(task)
		if err != nil {
			return err
		}
		if err := encoder.Encode(result); err != nil {
			return err
		}
	}
	return lines.Err()
}

// requestTime is how long one HTTP exchange may take.
const requestTime = 60 * time.Second

// trusting returns a transport that keeps its connections and believes only the given roots.
func trusting(file string) (*http.Transport, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: maxWorkers,
		DisableCompression:  true,
	}, nil
}
