"""People whose names differ between CFP's `names.txt` and LFW.

Comparing the two lists by exact name finds 172 people in both. It misses these 33, whose names are misspelt, shortened
or cased differently. Each was found by name and confirmed by face: the mean embedding of the person's frontal CFP
images and that of the LFW folder have a cosine of at least 0.57 (MobileFaceNet trained on MS1M), and the next LFW
person stays below 0.48. Training on one set and testing on the other is disjoint only without these people.
"""

LFW_NAME_OF_CFP_NAME: dict[str, str] = {
    "Albert Pujol": "Albert_Pujols",
    "Alex Fergusson": "Alex_Ferguson",
    "Barbara Streisand": "Barbra_Streisand",
    "Beyonce": "Beyonce_Knowles",
    "Catherine Zeta": "Catherine_Zeta-Jones",
    "Cristina Fernandez De Kirchner": "Cristina_Kirchner",
    "David Cruso": "David_Caruso",
    "Diane Feinstein": "Dianne_Feinstein",
    "Diego Maradona": "Diego_Armando_Maradona",
    "Fernando Alanso": "Fernando_Alonso",
    "George Bush": "George_W_Bush",
    "Gerard Schroeder": "Gerhard_Schroeder",
    "Jean Chretian": "Jean_Chretien",
    "Jennifer Anniston": "Jennifer_Aniston",
    "Jennifer Capriarti": "Jennifer_Capriati",
    "Jevin Kostner": "Kevin_Costner",
    "Joe Biden": "Joseph_Biden",
    "John Mcenroe": "John_McEnroe",
    "Lebron James": "LeBron_James",
    "Leonardo Dicaprio": "Leonardo_DiCaprio",
    "Luiz Lula Da Silva": "Luiz_Inacio_Lula_da_Silva",
    "Mathew Mcconaughey": "Matthew_McConaughey",
    "Nancy Peloci": "Nancy_Pelosi",
    "Nicholas Cage": "Nicolas_Cage",
    "Queen Elizabeth Ii": "Queen_Elizabeth_II",
    "Recep Erdogen": "Recep_Tayyip_Erdogan",
    "Robert Do Niro": "Robert_De_Niro",
    "Robert Downey": "Robert_Downey_Jr",
    "Robin Wright": "Robin_Wright_Penn",
    "Rooh Moo-hyan": "Roh_Moo-hyun",
    "Warren Buffet": "Warren_Buffett",
    "Yulia Tymoshenko": "Julia_Tymoshenko",
    "Ziyi Zhang": "Zhang_Ziyi",
}
