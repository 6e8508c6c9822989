"""Private keys with known faults, made to order, so that a CSR can be signed with them."""

import functools

import gmpy2  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.keys.weak_keys import prime


def from_primes(p: int, q: int, e: int = 65537) -> rsa.RSAPrivateKey:
    """Return the private key of two primes, whatever is wrong with them."""
    d = int(gmpy2.invert(e, (p - 1) * (q - 1)))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=int(gmpy2.invert(q, p)),
        public_numbers=rsa.RSAPublicNumbers(e, p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def next_prime(number: int, e: int = 65537) -> int:
    """Return the next prime with which the prime *e* can be an exponent."""
    found = int(gmpy2.next_prime(number))
    return found if found % e != 1 else next_prime(found, e)


@functools.cache
def close_primes() -> rsa.RSAPrivateKey:
    """Return a key whose primes are neighbours (CVE-2022-26320)."""
    return from_primes(prime(3), next_prime(prime(3)))


@functools.cache
def small_factor() -> rsa.RSAPrivateKey:
    """Return a key of 2048 bits that 10007 divides."""
    return from_primes(next_prime((3 << 2046) // 10007), 10007)


@functools.cache
def roca() -> rsa.RSAPrivateKey:
    """Return a key as chips with the ROCA fault make them (CVE-2017-15361).

    There p = k·M + (65537^a mod M), with M a product of small primes.
    """
    product = int(gmpy2.primorial(701))
    primes: list[int] = []
    factor, power = (3 << 1022) // product, 7
    while len(primes) < 2:
        factor, power = factor + 1, power + 1
        candidate = factor * product + pow(65537, power, product)
        if gmpy2.is_prime(candidate):
            primes.append(candidate)
    return from_primes(*primes)


@functools.cache
def small_private_exponent() -> rsa.RSAPrivateKey:
    """Return a key whose private exponent Wiener's attack finds."""
    p, q = prime(4), prime(5)
    phi = (p - 1) * (q - 1)
    d = int(gmpy2.next_prime(1 << 400))
    while gmpy2.gcd(d, phi) != 1:
        d = int(gmpy2.next_prime(d))
    return from_primes(p, q, int(gmpy2.invert(d, phi)))


@functools.cache
def repeating() -> rsa.RSAPrivateKey:
    """Return a key whose modulus repeats a byte."""
    top = int.from_bytes(b"\xc5" + b"\xaa" * 40 + bytes(range(1, 216)), "big")
    return from_primes(prime(6), next_prime(top // prime(6)))


@functools.cache
def sized(bits: int, e: int = 65537) -> rsa.RSAPrivateKey:
    """Return a key of any size and exponent, with nothing else wrong."""
    p = next_prime(prime(11, bits // 2), e)
    q = next_prime((3 << (bits - 2)) // p, e)
    made = from_primes(p, q, e)
    assert made.key_size == bits
    return made
