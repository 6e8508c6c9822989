package main

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

const challengePath = "/.well-known/acme-challenge/"

// responder answers http-01 for the accounts that wait for it (RFC 8555 §8.3).
type responder struct {
	thumbprints sync.Map // name -> thumbprint of the account that ordered it
}

func newResponder() *responder { return &responder{} }

func (r *responder) expect(name, thumbprint string) { r.thumbprints.Store(name, thumbprint) }

func (r *responder) forget(name string) { r.thumbprints.Delete(name) }

func (r *responder) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	name, _, _ := strings.Cut(in.Host, ":")
	token, isChallenge := strings.CutPrefix(in.URL.Path, challengePath)
	thumbprint, isExpected := r.thumbprints.Load(name)
	if !isChallenge || !isExpected {
		http.NotFound(out, in)
		return
	}
	out.Header().Set("Content-Type", "application/octet-stream")
	io.WriteString(out, token+"."+thumbprint.(string))
}

func (r *responder) serveHTTP(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go http.Serve(listener, r)
	return nil
}

// Numbers of RFC 1035 §4.1.1 and §3.2.
const (
	dnsHeaderBytes   = 12
	dnsTypeA         = 1
	dnsClassInternet = 1
	dnsIsAnswer      = 0x8400 // a response, and authoritative
	dnsRecursion     = 0x0100
	dnsPacketBytes   = 512
)

// serveNames answers every A question with 127.0.0.1, and every other with no records.
func serveNames(address string) error {
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		packet := make([]byte, dnsPacketBytes)
		for {
			size, from, err := socket.ReadFrom(packet)
			if err != nil {
				return
			}
			if answer := answerQuestion(packet[:size]); answer != nil {
				socket.WriteTo(answer, from)
			}
		}
	}()
	return nil
}

// answerQuestion returns the answer to a query with one question, nil for what is no query.
func answerQuestion(query []byte) []byte {
	if len(query) < dnsHeaderBytes || query[2]&0x80 != 0 || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	end := dnsHeaderBytes
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the root label, the type, the class
	if end > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	answer := append([]byte{}, query[:end]...)
	flags := binary.BigEndian.Uint16(query[2:])&dnsRecursion | dnsIsAnswer
	binary.BigEndian.PutUint16(answer[2:], flags)
	for _, count := range []int{6, 8, 10} { // answers, authorities, additional records
		binary.BigEndian.PutUint16(answer[count:], 0)
	}
	if kind == dnsTypeA {
		binary.BigEndian.PutUint16(answer[6:], 1)
		// A pointer to the question's name, type, class, 60 s to live, four octets.
		answer = append(answer, 0xc0, dnsHeaderBytes, 0, dnsTypeA, 0, dnsClassInternet, 0, 0, 0, 60, 0, 4)
		answer = append(answer, 127, 0, 0, 1)
	}
	return answer
}
