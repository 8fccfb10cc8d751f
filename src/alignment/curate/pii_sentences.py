"""Forms of numbers and sentences around them, from which `pii_training.py` makes examples: numbers of persons, and numbers of other things.

In a form, # is a digit and N one of 2 to 9; what else there is stands for itself. In a sentence, {x} is the number, {name} {org} {city}
{word} {mail} are drawn from the lists below, {n} is a small number and ¶ a new line. Forms and sentences of
`HELD_OUT` are none of `TRAIN`: other words, and other countries; only a social security number is written in one way. Nothing was taken
from a data set.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Numbers of one kind ("none": of no person), and where they stand. A row of forms or sentences is a line of text."""

    kind: str
    share: float  # of the examples of its split, before they are made to sum to 1
    forms: tuple[str, ...]
    sentences: tuple[str, ...]


def _group(kind: str, share: float, forms: str, sentences: str) -> Group:
    return Group(
        kind, share, *(tuple(line.strip() for line in text.strip().splitlines()) for text in (forms, sentences))
    )


NAMES = (
    "Anna Berg", "J. Moreau", "Li Wei", "Tom Baker", "Maria Rossi", "Olga Petrova", "Jan de Vries", "Ahmet Yilmaz", "Sofia Costa",
    "Dr. Keller", "Mrs Patel", "Иван Орлов", "王芳", "佐藤", "Eva", "Carlos", "Lars Holm", "Zofia", "Mr. Okafor", "Rachel",
)  # fmt: skip
ORGS = (
    "Blue Door Cafe", "Acme GmbH", "Northside Clinic", "City Library", "Studio Verde", "Müller & Söhne", "Casa Luna", "the front desk",
    "Hotel Bellevue", "ООО Вектор", "Garage Dupont", "our office", "Admissions", "Support", "Reception", "Smile Dental",
)  # fmt: skip
CITIES = (
    "Leeds", "Lyon", "Köln", "Porto", "Kraków", "Izmir", "Osaka", "Boston", "Москва", "Utrecht", "Pune", "Recife", "Málaga", "Bari",
    "Suite 4", "2nd floor", "Main Street 12", "Bahnhofstr. 3", "rue de la Gare 8", "Via Roma 21",
)  # fmt: skip
WORDS = (
    "the", "of", "and", "with", "results", "also", "new", "from", "see", "line", "value", "was", "und", "der", "mit", "les", "pour",
    "una", "por", "для", "на", "data", "over", "group", "first", "between", "total", "north", "model", "list", "same", "work", "he",
    "she", "is", "at", "for", "by", "in", "on", "not", "which", "then", "two", "market", "river", "report", "history", "club",
)  # fmt: skip
MAILS = (
    "info@acme.example",
    "eva@mail.example",
    "kontakt@verde.example",
    "<EMAIL>",
    "www.bluedoor.example",
    "office@holm.example",
)

_PHONE_FORMS = """
N##-N##-####
(N##) N##-####
N## N## ####
N##.N##.####
N##N######
+1 N## N## ####
+1 (N##) N##-####
+1N##N######
1-N##-N##-####
1 N## N## ####
(N##)N##-####
N##-####
N##-N##-#### x###
(N##) N##-#### ext. ####
(N##) N## ####
1-800-N##-####
07### ######
07### ### ###
07#########
020 #### ####
01## ### ####
01### ######
0800 ### ####
(020) #### ####
+44 7### ######
+44 (0)20 #### ####
+44 1### ######
0### #######
01## ########
01##########
0##/#######
0#### / #####
0###-#######
0## - ########
+49 ### #######
+49 (0)## ########
+49 1## ########
(0##) ########
0# ## ## ## ##
0#.##.##.##.##
0#-##-##-##-##
06########
+33 # ## ## ## ##
+33 (0)# ## ## ## ##
+33#########
0033 # ## ## ## ##
6## ### ###
9## ## ## ##
9########
6########
+34 ### ### ###
+34 ### ## ## ##
0# ########
3## #######
3## ### ####
3#########
+39 0# #### ####
+39 3## #######
06-########
06 ########
06 ## ## ## ##
0##-#######
+31 6 ########
5## ### ###
5########
2# ### ## ##
+48 ### ### ###
8 (9##) ###-##-##
+7 9## ###-##-##
8-9##-###-##-##
89#########
8 (495) ###-##-##
0 5## ### ## ##
0(5##) ### ## ##
05## ### ## ##
05#########
+90 5## ### ## ##
9#########
9#### #####
+91-9#########
+91 9#### #####
0##-########
1## #### ####
13#########
15#########
+86 1## #### ####
0##-#### ####
0#0-####-####
03-####-####
0#-####-####
(##) 9####-####
(##) ####-####
## 9#### ####
## 9########
+55 ## 9####-####
04## ### ###
(0#) #### ####
0# #### ####
+61 4## ### ###
+351 9## ### ###
9## ### ###
+32 4## ## ## ##
04##/##.##.##
04## ## ## ##
"""
# Forms that little else has: also without a word that says so.
_CLEAR_PHONE_FORMS = """
N##-N##-####
(N##) N##-####
(N##)N##-####
N##.N##.####
1-N##-N##-####
1-800-N##-####
+1 N## N## ####
+1 (N##) N##-####
+44 7### ######
+44 (0)20 #### ####
+49 (0)## ########
+49 1## ########
+33 # ## ## ## ##
+34 ### ### ###
+39 3## #######
+7 9## ###-##-##
+86 1## #### ####
+91 9#### #####
(##) 9####-####
(0##) ########
0# ## ## ## ##
"""
_HELD_PHONE_FORMS = """
0## ### ## ##
0##.###.##.##
+41 ## ### ## ##
07#-### ## ##
07# ### ## ##
08-### ### ##
+46 7# ### ## ##
### ## ###
## ## ## ##
+47 ### ## ###
+45 ## ## ## ##
040 #######
050 ### ####
+358 40 #######
06 ## ### ####
+36 30 ### ####
0664 #######
+43 1 #######
2## ### ####
69########
+30 69# ### ####
010-####-####
02-###-####
+82 10-####-####
9### ####
6### ####
+65 9### ####
080# ### ####
+234 80# ### ####
05#-#######
+972 5#-#######
08##-####-####
08##########
+62 8##-####-####
09## ### ###
+84 9## ### ###
55 #### ####
+52 55 #### ####
011 ####-####
11-####-####
+54 9 11 ####-####
082 ### ####
01########
+20 10 #### ####
021 ### ####
+64 21 ### ###
7## ### ###
+420 ### ### ###
07## ### ###
+40 7## ### ###
(0##) ###-##-##
+380 ## ### ## ##
"""
_PHONE_SENTENCES = """
Call {name} at {x} before noon.
You can call us on {x} or write to {mail}.
Please phone {x} for a table.
My phone number is {x}, talk soon.
My number is {x}
her new number is {x} now
Phone: {x}
Phone {x}
phone no. {x}, {city}
Phone number: {x}¶{mail}
Tel: {x}
Tel. {x}
Tel.: {x} Fax: {n}
TEL {x}
Telephone: {x}
Telephone {x} ({org})
Fax: {x}
fax {x} for orders
Mobile: {x}
Mob. {x}
cell: {x}
Cell phone {x}
my cell is {x} if you need me
text me at {x}
Text {x} when you arrive
Whatsapp {x}
WhatsApp: {x} ¶{name}
reach {name} at {x}
can be reached at {x}.
Contact: {name}, {x}
Contact {org} on {x} to book
For details contact {name} on {x}.
dial {x} and ask for {name}
give me a ring on {x}
ring {x} after six
toll free {x}
Office: {x} | {mail}
{name}¶{org}¶{x}¶{mail}
{name}, {org}, {city}, {x}
{name} ({x})
{org} - {city} - {x}
{city}¶{x}¶{mail}
"phone": "{x}"
"phone_number": "{x}", "city": "{city}"
<phone>{x}</phone>
tel={x}
<a href="tel:{x}">
T: {x} | E: {mail}
P: {x}
T {x}
M {x}
{name};{x};{mail}
{name}: hi, it's me, {x}, call back
lost my phone, temporary number {x}
Hotline {x} is open daily
to cancel, call {x}
thank you for calling {x}
try calling this number, {x}
at the number {x}
this number: {x}
the number is {x}.
numbers: {x} or {n}
helpline {x}, open day and night
visit the website or call {x}
{city}. Ph {x}
{city}, {x}. E-mail {mail}
call {org}: {x} or mail {mail}
Call now {x}!
call toll-free: {x}
Contact number {x}
contact {x}
home {x}, work {n}
emergency contact {name} {x}
crisis line {x}
hi this is {name}, {x}
{name} tel {x} fax {n}
telephoned {x} but nobody answered
"mobile": "{x}",
mobile={x}
Phone,Name¶{x},{name}
Appointments: {x}
Reservations {x}
Sie erreichen uns unter {x} oder {mail}.
Meine Nummer ist {x}, ruf an
Meine Handynummer: {x}
Handy: {x}
Handy {x}
Telefon: {x}
Telefon {x}, Telefax {n}
Tel.-Nr. {x}
Telefonnummer {x}
Rufen Sie {x} an.
Bitte rufen Sie {name} unter {x} zurück.
Mobil {x}
Rückruf bitte an {x}
Ansprechpartner: {name}, {x}
Appelez le {x} pour réserver.
Tél. : {x}
Tél {x}
tel : {x} ({city})
Téléphone : {x}
Téléphone portable {x}
Mon numéro est le {x}
Contactez {name} au {x}.
joindre au {x}
portable : {x}
Llámame al {x} mañana
Teléfono: {x}
Tfno. {x}
Tel. de contacto {x}
mi número es el {x}
Móvil: {x}
contacta con {name} en el {x}
Llame al {x} para pedir cita
Chiamami al {x} stasera
Telefono {x}
Telefono: {x} - {city}
Cell. {x}
cellulare {x}
il mio numero è {x}
Per informazioni: {x}
Ligue para {x} e fale com {name}
Telefone: {x}
telefone {x}, {city}
Celular: {x}
meu número é {x}
Telemóvel {x}
Contato: {x}
Bel ons op {x}
Telefoonnummer: {x}
Telefoon {x}
mijn nummer is {x}
bel {name}: {x}
mobiel {x}
Zadzwoń pod numer {x}
tel. kom. {x}
Telefon kontaktowy: {x}
mój numer to {x}
kom. {x}
Звоните по телефону {x}
Телефон: {x}
тел. {x}
тел: {x}, {city}
мой номер {x}
моб. {x}
звонить {x} {name}
Telefon numaram {x}
Telefon: {x} Faks: {n}
cep: {x}
Cep telefonu {x}
beni {x} numaradan arayın
Ring mig på {x}
Telefon {x}
Mobil: {x}
请拨打{x}联系我们
电话：{x}
电话: {x}
联系电话 {x}
手机号码：{x}
手机：{x}
我的手机号是{x}，谢谢
電話番号：{x}
電話 {x}
TEL：{x}
お問い合わせは{x}まで
携帯：{x}
전화번호: {x}
전화 {x}
هاتف: {x}
رقم الهاتف {x}
فون: {x}
फोन: {x}
मोबाइल नंबर {x}
Điện thoại: {x}
SĐT {x}
Telepon: {x}
Hubungi {x}
Hp. {x}
Puhelin {x}
puh. {x}
telefonszám: {x}
Τηλέφωνο: {x}
τηλ. {x}
телефону {x} ({name})
טלפון: {x}
"""
_HELD_PHONE_SENTENCES = """
If there are problems, you may telephone me on {x}.
Mobile phone of {name}: {x}.
{name} | {org} | tel {x}
Phone/Fax {x}
Call or text: {x}
{name} wrote: my cell phone number changed to {x}
Send an SMS to {x}
Just call the office ({x}) and ask.
tel. nr {x} {city}
contact no: {x}
Phone (home) {x}
Ring us: {x}
phone = "{x}"
Our telephone number is now {x}.
Ruf mich doch an: {x}
Telefonisch erreichbar unter {x}
Mobiltelefon: {x}
Tel.nr.: {x}
Handy-Nr. {x}
Vous pouvez me joindre au {x}
N° de téléphone : {x}
Numéro de portable {x}
Mi teléfono es {x}
Teléfono móvil {x}
Puedes llamar al {x}
Numero di telefono {x}
tel. cellulare {x}
Chiamate il {x}
Meu telefone é {x}
Ligue já: {x}
Mijn telefoonnummer is {x}
tel. {x} of mail {mail}
numer telefonu: {x}
proszę dzwonić {x}
номер телефона {x}
мобильный телефон: {x}
тел./факс {x}
telefon no: {x}
Telefonnummer är {x}
Telefonnummer {x}, {city}
联系我：{x}
手机 {x} 微信同号
電話：{x}
전화: {x}
رقم هاتف {x}
Số điện thoại {x}
Nomor telepon {x}
Puhelinnumero: {x}
Telefon/fax: {x}
מספר טלפון {x}
"""
_SSN_SENTENCES = """
SSN: {x}
SSN {x}
ssn={x}
"ssn": "{x}"
Social Security number {x}
social security: {x}
her social security number is {x}
My SSN is {x}, please keep it safe
{name}, SSN {x}, born {n} May
Social Security No. {x}
soc sec no {x}
last year I gave them my social, {x}
applicant {name} ({x}), SSN on file
Taxpayer SSN {x}
número de seguro social {x}
"""
_CARD_SENTENCES = """
card number {x}
Card: {x}
card no. {x} exp {n}
Credit card {x}, CVV {n}
charged to my card {x} yesterday
Visa {x}
Mastercard {x}
amex {x}
pay with {x}, valid until {n}
"card_number": "{x}"
cc: {x} exp. {n}
debit card {x}
my card ending, full number {x}
Kartennummer {x}
Kreditkarte: {x}
Meine Karte {x} wurde belastet
numéro de carte {x}
carte bancaire : {x}
tarjeta {x}
número de tarjeta: {x}
carta di credito {x}
numero della carta {x}
cartão de crédito {x}
número do cartão {x}
kaartnummer {x}
karta {x}
numer karty {x}
номер карты {x}
карта {x}
kart numarası {x}
银行卡号：{x}
信用卡 {x}
カード番号：{x}
카드 번호 {x}
"""
_CARD_FORMS = """
4### #### #### ####
5### #### #### ####
22## #### #### ####
6### #### #### ####
4###############
5###############
2###############
6###############
3### ###### #####
34#############
50##########
9### #### #### ####
4###-####-####-####
"""

TRAIN = (
    _group("phone", 0.30, _PHONE_FORMS, _PHONE_SENTENCES),
    _group("phone", 0.04, _CLEAR_PHONE_FORMS, "{word} {word} {x} {word}\n{word} {x}\n{x} {word} {word}\n{word} ({x})\n{word} {word}: {x}\n'{x}'\n{org} {x}\n{name} {x}\n{city} {x}"),
    _group("ssn", 0.05, "###-##-####\n### ## ####\n#########\n###.##.####", _SSN_SENTENCES),
    _group("card", 0.07, _CARD_FORMS, _CARD_SENTENCES),
    # Numbers of no one, in forms of their own ...
    _group(
        "none", 0.07,
        "#.#.#.#####\n##.#.####.###\n20##.##.##.####\n#.##.#-####\n1.3.6.1.4.#.####.#\n2.5.29.##.#.#.##\n##.##.###.##\n###.##.###.##\n10.###.##.##",
        """
        upgrade to version {x} of the {word}
        firmware {x} fixes the crash
        Version {x} ist erschienen
        la versión {x} corrige errores
        mise à jour {x} disponible
        kernel {x}-generic
        {word}=={x}
        release notes for {x} ({word})
        phone firmware {x} was rolled out
        driver {x} | {n} downloads
        object identifier {x} names the policy
        policy OID {x} of the certificate
        версия {x} вышла
        版本 {x} 更新
        host {x} did not answer
        traffic from {x} was blocked
        """,
    ),
    _group(
        "none", 0.07,
        "978-#-##-######-#\n978-#-####-####-#\n979-##-###-####-#\n978##########\n#-###-#####-#\n#-####-####-#\n####-####\n#############\n40###########",
        """
        ISBN: {x} (paperback)
        ISBN {x}, {n} pages
        ISBN-13 {x}.
        ISBN {x}, 2. Auflage
        ISSN {x} (print)
        {org}, {n} p., ISBN {x}
        (ISBN {x})
        barcode {x} on the box
        EAN code {x}
        GTIN: {x}
        UPC {x}
        """,
    ),
    _group(
        "none", 0.09,
        "20##-##-##\n##/##/20##\n##.##.20##\n19##-20##\n19##/##/##\n20##0###\n##-##-####\n20##0###1#####\n16########\n17########\n17###########\n1#-1#-20##\n20## ## ##",
        """
        on {x} the {word} was closed
        Date: {x}
        updated {x} by {name}
        call me back on {x} in the afternoon
        the call of {x} lasted {n} minutes
        Datum: {x}
        am {x} in {city}
        le {x} à {city}
        el {x} en {city}
        {x} - {word} {word}
        [{x}] {word} started
        timestamp {x}
        "timestamp": {x},
        "created_at": {x}
        born {x}, {city}
        epoch {x}
        log-{x}.txt
        backup of {x}
        дата {x}
        日期：{x}
        ({x})
        """,
    ),
    _group(
        "none", 0.08,
        "# ### ###\n## ### ###\n#.###.###\n##.###.###\n### ### ###\n###.###.###\n#######\n########\n#########\n##########\n# ### ### ###",
        """
        {x} people live there
        a population of {x} in {n}
        population: {x}
        cost {x} euros
        {x} € pro Jahr
        {x} Kč
        {x} руб.
        prix {x} FCFA
        budget of {x} dollars
        revenue was {x} yen
        Umsatz von {x} Euro
        {x} habitants
        {x} Einwohner
        {x} habitantes
        over {x} phones were sold
        some {x} text messages a day
        {x} mobile phones were recalled
        {x} views
        {x} bytes
        size: {x}
        file of {x} bytes copied
        {x} km from the sun
        distance {x} m
        area {x} km²
        {x} hits in {n} ms
        total {x}
        sum = {x}
        count: {x}
        {x} cells per litre
        """,
    ),
    _group(
        "none", 0.11,
        "##########\n########\n#######\n#########\n###-#######-#######\n####-####-##\n##-#####-#####\n###-######\n####-######\n#### #### ####\n### ### ####\n###-###-####\n###-##-####\n0#########\n0#### ######\n###########\n############\n##-#######\n####/#####",
        """
        order {x} was shipped
        Order no. {x}
        order number: {x}
        your order {x} from {org}
        invoice {x}
        Invoice number {x} of {org}
        ticket {x} is closed
        case number {x}
        case no. {x}
        serial number {x}
        serial no {x}
        S/N {x}
        part number {x}
        part no. {x} for the pump
        item {x} is out of stock
        SKU {x}
        SKU: {x}
        tracking number {x}
        parcel {x} left {city}
        customer number {x}
        customer id: {x}
        account {x} at the bank
        reference {x}
        Ref. {x}
        Ref: {x}
        id {x}
        ID: {x}
        "id": {x},
        id={x}
        user id {x}
        patent {x} was granted
        US Patent No. {x}
        registration number {x}
        policy number {x}
        licence {x}
        Bestellnummer {x}
        Bestellung {x}
        Rechnung Nr. {x}
        Rechnungsnummer {x}
        Artikelnummer {x}
        Kundennummer: {x}
        Seriennummer {x}
        Aktenzeichen {x}
        commande {x}
        numéro de commande {x}
        facture n° {x}
        pedido {x}
        número de pedido {x}
        factura {x}
        ordine {x}
        fattura n. {x}
        encomenda {x}
        bestelling {x}
        zamówienie nr {x}
        заказ {x}
        заказ № {x}
        счёт {x}
        ИНН {x}
        NIP {x}
        sipariş {x}
        订单号：{x}
        编号 {x}
        注文番号 {x}
        주문 번호 {x}
        model {x}
        phone model {x}
        mobile device {x} of the series
        issue {x}
        bug {x}
        PMID {x}
        doi 10.{n}/{x}
        commit {x}
        """,
    ),
    _group(
        "none", 0.09,
        "### ### ####\n#### #### ####\n## ### #### ##\n#  ##  ####  #\n### ### ###\n##-##-##-##\n## ## ## ##\n## ## ## ## ##\n## ## ## ## ## ##\n#-# #-# #-# #-#\n1-2-3-4-5-6-#\n######## ########\n##.# ##.# ##.#\n#.## #.## #.##\n0.### 0.###\n+##########\n##########\n###########\n(#) (#) ####-##\n12 34 56 78",
        """
        {n} {x} {n}
        {n} {n} {n} {x} {n} {n}
        {word} {x} {n}
        | {x} | {n} | {n} |
        |{x}|{n}
        {n}¶{x}¶{n}¶
        {x}, {n}, {n}, {n}
        [{x}, {n}, {n}]
        array {x} {word}
        row {n}: {x}
        scores: {x}
        {name} won {x}
        numbers drawn: {x}
        sequence {x} and so on
        position {x}
        matrix {x}
        dial settings {x} of the lathe
        {word} = {x}
        {word}={x};
        const {word} = {x};
        x = {x} + {n}
        seed {x}
        return {x};
        {word} = {word}.{word}({x})
        {word}({x}, {n})
        '{word}': {x}, '{word}': {n}
        "{word}": {x},
        {n}, -{n}, {x}, {n}
        -{n}  {x}  int32
        UUID '{x}'
        key '{x}'
        """,
    ),
    _group(
        "none", 0.07,
        "###-###-###\n####-####\n### - ####\n#### - ####\n#####-#####\n####-#####\n###-####\n##-##-###\n##-###-####\n10-20-###\n100-###-####\n###.####-####\n#####-##-#\n######-##-#\n##.####-##.####\n######-######\n# (19##) ###-###\n## (20##) ####-####\n(19##) ###-###",
        """
        range {x}
        a range of {x} metres
        between {x} mm
        from {x} units
        values of {x} kg
        {x} mm wide
        {x} km/h
        pages {x}
        pp. {x}
        vol. {n}, pp. {x}
        S. {x}
        {name}, {word} {word}, J. Math. {x}.
        Phys. Rev. {x}
        Proc. {word} {x}
        the years {x}
        in {x} the {word}
        lines {x} of the file
        grid reference {x}
        zip {x}
        {city}, TX {x}
        CAS {x}
        CAS number {x}
        positions {x} of chromosome {n}
        section {x} of the law
        docket {x}
        flight {x}
        ISO {x}
        N {x} W
        {x} V
        reading of {x} at {n} °C
        {x} Hz
        cell line {x}
        galaxy {x}
        asteroid {x}
        temperature {x} K
        """,
    ),
    _group(
        "none", 0.06,
        "######-####\n####-####\n#####-####\n######-#####\n####/####\n#####/###\n#### / ####\n##### - ####\n#.### ### ####\n#.### ### ## ##\n### ###.####\n##.### ### ##\n# ### ###.##\n##-##-####\n#######\n########\n##/##/20##\n20##-##-##",
        """
        {x} = {n}
        {x}={n}
        so it made {x} = {n} coins
        {n} + {x} = {n}
        {n} * {x} is {n}
        ({x}) / {n}
        the phone can hold {x} = {n} photos
        phones cost {x} = {n} each
        {name} has {x} = {n} phones left
        calls: {x} = {n}
        contacts saved {x} = {n}
        his cell has {x} bits
        the phone was released on {x}
        a phone of {x}
        call on {x} at {n}
        tel aviv {x}
        text of {x}, {n} words
        fax machines sold: {x}
        mobile users: {x}
        number of calls: {x}
        number of phones {x}
        the phone's build {x}
        telephone poles: {x}
        mass ratio {x} {n} e-{n}
        constant {x} e-{n}
        {word} ratio   {x}   {n}
        {word} {word}      {x}      {n}
        """,
    ),
    # ... and in the forms of telephone and other personal numbers: that alone is no evidence.
    _group(
        "none", 0.05,
        "\n".join(form for form in _PHONE_FORMS.split("\n") if form not in _CLEAR_PHONE_FORMS and "+" not in form) + "###-##-####\n### ## ####\n#########",
        """
        {word} {word} {x} {word} {word}
        {word} {x} {word}
        {word} {word} {word}: {x}
        {word} {word} ({x}) {word}
        {n} {x} {n}
        order {x}
        serial number {x}
        part no. {x}
        item {x}
        ticket {x}
        id: {x}
        invoice {x}
        Bestellnummer {x}
        numéro {x} du lot
        table {n}: {x} {n}
        {word}={x}
        {x} {word} {word} {word}
        """,
    ),
    _group(
        "none", 0.05, _CARD_FORMS + "################\n###############",
        """
        IMEI {x}
        {word} {word} {x} {word}
        serial {x}
        id {x}
        tracking {x}
        {n} {x} {n}
        EAN {x}
        {word}={x}
        random seed {x}
        {word} = {word}.random({x})
        seed={x})
        {word}({x})
        {word}[{x}]
        {x};
        (cell){x};
        hash {x}
        address {x}
        """,
    ),
)  # fmt: skip

HELD_OUT = (
    _group("phone", 0.36, _HELD_PHONE_FORMS, _HELD_PHONE_SENTENCES),
    _group("ssn", 0.02, "### - ## - ####\n###-##-####", "Soc. Sec. # {x}\nhis SSN ({x}) leaked\nSSN on file: {x}"),
    _group(
        "card", 0.04,
        "3### ###### ####\n62## #### #### #### ###\n5018########\n62## #### #### ####\n22##############",
        """
        please charge card {x}
        Card no {x} (expires {n}/27)
        credit card number: {x}
        Kreditkartennummer {x}
        ma carte {x}
        mi tarjeta de crédito {x}
        carta n. {x}
        карты {x}
        卡号 {x}
        """,
    ),
    _group(
        "none", 0.58,
        "####.####.##\n#.#.##.######\n13#.###.##.###\n977####-#####\n#-##-######-#\n978 # ## ###### #\n####.##.##\n####/##/##\n18##-19##\n15########\n## ### ### ###\n#'###'###\n####### ###\n#####-###-###\n##/####/#####\n###-#-#####\n####.###.###\n## ##### #####\n#### ## ######\n### ## #### ##\n#-##-###-####\n##### #### ###\n####-###-##\n0### ### ##\n08## ####\n###-####-###\n########-####\n#### ### ###\n##.###-###",
        """
        build number {x} of the nightly
        Release: {x}
        catalogue number {x}
        cat. no. {x}
        docket no. {x}
        lot {x}
        batch {x} expires in {n} months
        meter reading {x}
        mileage {x}
        elevation {x} m
        checksum {x}
        job id {x}
        job {x} finished in {n} s
        census of {n}: {x}
        bibliographic record {x}
        accession {x}
        article {x} of the catalogue
        Chargennummer {x}
        Zählerstand {x}
        numéro de série {x}
        número de serie {x}
        numero d'ordine {x}
        nota fiscal {x}
        ordernummer {x}
        numer seryjny {x}
        артикул {x}
        серийный номер {x}
        货号 {x}
        sales of {x} units
        {x} inhabitants
        {x} tonnes
        the {word} {word} in {x} and {word}
        {word} {x}, {word}
        {n}; {x}; {n}
        ({n}, {x}, {n})
        pixel size {x}
        width {x} px
        block {x}
        node {x} of {n}
        trains {x} to {city}
        {x} shares
        phones shipped: {x}
        a phone released on {x}
        cells {x} to {n}
        contact lens {x}
        text size {x}
        calls per year: {x}
        """,
    ),
)  # fmt: skip
