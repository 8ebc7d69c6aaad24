"""Where people live and where their files lie: coordinates, street addresses, home folders."""

import re

COORDINATES = re.compile(
    r"(?<![\d.])[-+]?(?:[0-8]?\d|90)\.\d{3,}°?(?:\s*[NS])?\s*[,;/ ]\s*[-+]?(?:1[0-7]\d|0?\d{1,2}"
    r"|180)\.\d{3,}(?:°?\s*[EWO])?(?![\d.])"
    r"|\d{1,2}°\s?\d{1,2}['′’]\s?(?:\d{1,2}(?:[.,]\d+)?[\"″”]"
    r"|\d{1,2}(?:[.,]\d+)?'')?\s?[NS][,;]?\s*\d{1,3}°\s?\d{1,2}['′’]\s?"
    r"(?:\d{1,2}(?:[.,]\d+)?[\"″”]|\d{1,2}(?:[.,]\d+)?'')?\s?[EWO]\b"
    r"|\bgeo:[-\d.]+,[-\d.]+"
    r"|\blat\w*\W{1,3}-?\d{1,2}\.\d+\W{1,3}(?:lon|lng)\w*\W{1,3}-?\d{1,3}\.\d+"
    r"|\b[NS] ?\d{1,2}[° ] ?\d{1,2}\.\d+\W{1,3}[EWO] ?\d{1,3}[° ] ?\d{1,2}\.\d+",
)

_CAP = r"[^\W\d_a-z][^\W\d_'’]*(?:['’-][^\W\d_]+)*"
_NUMBER = r"\d{1,5}(?: ?[a-zA-Z](?!\w))?(?:[-/]\d{1,4})?"
_TOWN = rf"(?:,? ?\d{{4,5}}(?:-\d{{4}})?(?: {_CAP}){{1,2}})?"
STREET = re.compile(
    rf"\b{_NUMBER},? (?:(?:North|South|East|West|N|S|E|W|NE|NW|SE|SW|Old|New|Upper|Lower)\.? )?(?:{_CAP}"
    rf"|\d+(?:st|nd|rd|th)) (?:{_CAP} ){{0,2}}"
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Square|Sq|Place|Pl|Terrace"
    r"|Close|Crescent"
    r"|Highway|Hwy|Parkway|Pkwy|Alley|Row|Gardens|Grove|Hill|Mews|Circle|Cir|Trail)\b\.?"
    rf"(?:,? (?:NE|NW|SE|SW|N|S|E|W)\b)?(?:,? (?:Apt|Apartment|Suite|Unit|Flat|#)\.? ?\w{{1,5}})?{_TOWN}"
    rf"|\b[^\W\d_a-z]\w{{2,}}(?:straße|strasse|str\.|gasse|allee|damm|chaussee|ufer|weg|platz|straat|laan|plein"
    rf"|gracht|kade|singel|gatan|vägen"
    rf"|gata|veien|(?:er|s)gade|vej|katu) ?{_NUMBER}\b{_TOWN}"
    rf"|\b{_CAP}(?:er|en)? (?:Straße|Strasse|Str\.|Weg|Platz|Allee|Ring|Gasse|Damm) {_NUMBER}\b{_TOWN}"
    rf"|\b{_NUMBER},? (?:bis |ter )?(?i:rue|avenue|av\.|boulevard|bd|place|chemin|allée|impasse|quai|route|cours"
    rf"|square) (?:(?:de|du|des|la|le|les|de la|l['’]|d['’]) ?){{0,2}}{_CAP}"
    rf"(?:[ -]{_CAP}){{0,3}}{_TOWN}"
    rf"|\b(?:{_CAP} ){{1,3}}(?:Street|Road|Avenue|Ave\.?|Lane|Boulevard|Blvd\.?|St\.) {_NUMBER}\b(?! [a-z])"
    rf"|\b(?:Calle|calle|rua|avenida|C/|Avenida|Av\.|Avda\.|Paseo|Plaza|Carrera|Cra\.|Rua|R\.|Travessa|Via|Viale|Piazza|Corso|ul\."
    rf"|Ul\.|ulica|aleja|al\.|улица|ул\.|проспект)"
    rf" ?(?:(?:de|del|da|do|dos|la|las|los|della|di|dei) ){{0,2}}{_CAP}(?: (?:(?:de|del|da|do|di|y"
    rf"|e) )?{_CAP}){{0,3}},? ?(?:n[º°.]? ?|№ ?|д\. ?)?{_NUMBER}\b{_TOWN}"
    r"|\bP\.? ?O\.? Box \d+",
)
STREET_HINT = re.compile(
    r"\d.*(?:St|R[do]|Ave|L[an]|Dr|Bl|C[to]|Way|Sq|Pl|Ter|Close|Cres|H[iw]|P[ak]|Al|G[ar]|Mews|Cir|Trail|[rR]ue"
    r"|av|bo|bd|place|chemin|all|imp|quai|route|cours|squ)"
    r"|(?:stra|str\.|gasse|allee|damm|chauss|ufer|weg|latz|ring|laan|plein|gracht|kade|singel|gata|väg|vei|gade"
    r"|vej|katu|tie|Stra|Str\.|Weg|Platz|Allee"
    r"|Ring|Gasse|Damm|Calle|C/|Av|Paseo|Plaza|Carr|Cra|Rua|R\.|Trav|Via|Piazza|Corso|[uU]l|al\.|aleja|ул|просп"
    r"|Box|calle|rua|avenida|Road|Lane|Street|St\.).*\d",
)
POSTCODE = re.compile(r"\b(?:[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}|[A-Z]{2} \d{5}(?:-\d{4})?)(?!\w)")
"""British ones, and American ones behind their state: SW1A 2AA, CA 95014."""
_USERS = "Users|Documents and Settings|Benutzer|Usuarios|Utilisateurs|Utenti|Usuários|Пользователи"
HOME_FOLDER = re.compile(
    rf"(?:/(?:home|Users)/|\b[A-Za-z]:\\+(?:{_USERS})\\+|(?<![\w.])~(?=[a-z][\w-]+/))"
    r"(?P<user>(?!(?:Public|Shared|Default|user|username|runner|ubuntu|root"
    r"|me)\b)[^\s/\\\"'<>|:*?\0]{1,40}(?: [^\s/\\\"'<>|:*?\0]{1,40}(?=[/\\]))?)",
)
